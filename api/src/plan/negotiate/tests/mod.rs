//! Negotiation against a made-up cloud whose rules each test sets.

mod cases;
mod properties;
mod world;
