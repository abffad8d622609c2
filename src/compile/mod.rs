//! Room compile.
