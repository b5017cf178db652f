//! Limits how many requests run at the same time, and how much memory their bodies take. Requests beyond
//! the limits are refused immediately, so that the others are answered in time.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{options::HttpOptions, problem::Problem, router::AppState};

/// Routes that are answered under any load, because monitoring needs them.
const ALWAYS: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// The permits that are left for requests and for the memory of bodies.
#[derive(Debug)]
pub(crate) struct Load {
    requests: Semaphore,
    /// One permit for each kibibyte of bodies in memory.
    bodies: Arc<Semaphore>,
}

impl Load {
    pub(crate) fn new(options: &HttpOptions) -> Self {
        let of = |count: usize| Semaphore::new(count.min(Semaphore::MAX_PERMITS));
        Self {
            requests: of(options.requests),
            bodies: Arc::new(of(options.body_memory.div_ceil(1024))),
        }
    }
}

/// The memory that is reserved for a request's body, until the answer begins.
#[derive(Debug, Clone)]
pub(crate) struct BodyRoom {
    bodies: Arc<Semaphore>,
    taken: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl BodyRoom {
    /// Reserves memory for so many more bytes of the body, or refuses the request with 503.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), Problem> {
        let kibibytes = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let more = Arc::clone(&self.bodies)
            .try_acquire_many_owned(kibibytes)
            .map_err(|_| overloaded())?;
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *taken {
            Some(taken) => taken.merge(more),
            None => *taken = Some(more),
        }
        Ok(())
    }
}

fn overloaded() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable")
        .detail("Too much is being worked on. Try again.")
        .header(header::RETRY_AFTER, HeaderValue::from_static("1"))
}

/// Runs a request if fewer than [`HttpOptions::requests`] are running; else answers 503.
pub(crate) async fn admit(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let is_always =
        route.is_some_and(|route| ALWAYS.iter().any(|always| route.as_str().ends_with(always)));
    if is_always {
        return next.run(request).await;
    }
    let Ok(_place) = state.load.requests.try_acquire() else {
        return overloaded().into_response();
    };
    request.extensions_mut().insert(BodyRoom {
        bodies: Arc::clone(&state.load.bodies),
        taken: Arc::default(),
    });
    next.run(request).await
}
