//! Room ctl.
