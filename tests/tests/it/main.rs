//! Whole-system tests: the real binary, a lab with real routers, and the public API.

#[cfg(test)]
mod arrows;
#[cfg(test)]
mod broken;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod corruption;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod plans;
#[cfg(test)]
#[path = "../../../api/tests/postgres/mod.rs"]
mod postgres;
#[cfg(test)]
mod printing;
#[cfg(test)]
mod replicas;
#[cfg(test)]
mod rig;
