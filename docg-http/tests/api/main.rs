//! Tests of the API. Most tests pass requests directly to the router, without a socket.

mod approvals;
mod conformance;
mod connections;
mod control;
mod events;
mod executions;
mod headers;
mod large_bodies;
mod metrics;
mod openapi;
mod operation_cases;
mod problems;
mod reads;
mod records;
mod refusals;
mod request_signature;
mod review;
mod serving;
mod signatures;
mod sse;
mod sse_list;
mod strangers;
mod streams;
mod support;
mod tenancy;
mod workflows;
