//! A little internet on one machine: simulated clouds that speak the clouds' own wire protocols, and the network behind them.

pub mod clouds;
