//! Room dataplane.
