//! The surface on a real listener, over the real store.

mod access;
mod bad_input;
mod document;
mod fixture;
mod gateways;
mod issues;
mod lifecycle;
mod mutations;
mod reads;
mod streams;
