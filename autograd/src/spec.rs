//! Tests of the tape as a whole.
