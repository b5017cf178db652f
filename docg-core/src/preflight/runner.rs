pub struct PreflightLimits; pub struct PreflightRequest; pub fn run() {}
