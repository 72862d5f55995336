//! Whole-system tests: API, lab and gateways together. The tests themselves stand in `tests/it`.
