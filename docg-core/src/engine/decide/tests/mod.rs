//! Tests of the pure core: no runtime, no mock, no clock.

mod matrix;
mod scenarios;
mod sequences;
mod world;
