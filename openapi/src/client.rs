//! The typed HTTP client of `/v1`.
