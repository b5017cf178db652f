#![doc = "The reference server: a complete application on top of docg."]

pub mod pdf;
