//! Tests of the pure core: no runtime, no mock, no clock.

mod follow_up;
mod matrix;
mod scenarios;
mod sequences;
mod world;
