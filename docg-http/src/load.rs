//! Limits the requests at once by number, and their bodies by size. Requests beyond the limits are
//! refused at once, so that the others are answered in time.

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

/// The room that is left for requests and bodies.
#[derive(Debug)]
pub(crate) struct Load {
    requests: Semaphore,
    /// One permit for each kibibyte.
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

/// The room that a request's body occupies, until the answer begins.
#[derive(Debug, Clone)]
pub(crate) struct BodyRoom {
    bodies: Arc<Semaphore>,
    taken: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl BodyRoom {
    /// Takes room for so many more bytes.
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

/// Admits a request if there is room for it; else answers 503.
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
