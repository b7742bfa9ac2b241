//! Tests of the server steps.
