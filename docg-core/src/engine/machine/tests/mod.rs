//! Tests of the machine. They need no runtime, no mock and no clock.

mod clock;
mod conditions;
mod doubts;
mod follow_up;
mod interrupted;
mod left_behind;
mod matrix;
mod scenarios;
mod sequences;
mod stopped;
mod table;
mod times;
mod world;
