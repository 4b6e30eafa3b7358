//! Understanding parameters.
