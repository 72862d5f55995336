//! The store: every transaction of Tieline, as one trait with two modules, `sqlite` and `postgres`, and one conformance
//! suite that runs on both.
