//! Room calc.
