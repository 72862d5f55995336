//! The control plane of Tieline.
//!
//! Arrows inside: `http` → `app` → {`plan`, `state`, `engine`, `store`}; `engine` → {`plan`, `state`, `store`, providers};
//! `http` → `coordinator` → {`plan`, `store`}; `plan` → the providers' pure halves. `plan` and `state` do no IO; no cloud is
//! named in `plan` or `engine`; no SQL stands outside `store`; no clock and no randomness outside `engine::clock`.

pub mod app;
pub mod auth;
pub mod clouds;
pub mod coordinator;
pub mod engine;
pub mod events;
pub mod http;
pub mod plan;
pub mod secrets;
pub mod service;
pub mod state;
pub mod store;
pub mod topology;
