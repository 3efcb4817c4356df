//! How a Solve ended, whoever ended it: counted when its answer has gone out,
//! or when it is given up before.

use http::{HeaderMap, Response};
use http_body_util::BodyExt as _;
use tonic::{Code, Status};

use super::grpc::{Body, refuse};
use super::metrics::SolveOutcome;
use crate::telemetry::metrics::CounterBy;

/// A Solve that is under way; dropped before it is answered, it was canceled.
pub struct Solving {
    solves: CounterBy<SolveOutcome>,
    outcome: SolveOutcome,
}

impl Solving {
    /// Begins one.
    pub fn begin(solves: &CounterBy<SolveOutcome>) -> Self {
        Self {
            solves: solves.clone(),
            outcome: SolveOutcome::Canceled,
        }
    }

    /// Reads how it ended in the answer, as that passes.
    pub fn watch(mut self, answered: Result<Response<Body>, Status>) -> Response<Body> {
        match answered {
            Ok(response) => {
                self.note(response.headers());
                response.map(|body| {
                    body.map_frame(move |frame| {
                        if let Some(trailers) = frame.trailers_ref() {
                            self.note(trailers);
                        }
                        frame
                    })
                    .boxed_unsync()
                })
            }
            Err(status) => {
                self.outcome = outcome(status.code());
                refuse(&status)
            }
        }
    }

    fn note(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get(Status::GRPC_STATUS) {
            self.outcome = outcome(Code::from_bytes(code.as_bytes()));
        }
    }
}

impl Drop for Solving {
    fn drop(&mut self) {
        self.solves.count(self.outcome);
    }
}

fn outcome(code: Code) -> SolveOutcome {
    match code {
        Code::Ok => SolveOutcome::Ok,
        Code::Cancelled => SolveOutcome::Canceled,
        _ => SolveOutcome::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doors::buildkit::grpc::{status_trailers, unary_with_trailers};

    const ALL: [SolveOutcome; 3] = [
        SolveOutcome::Ok,
        SolveOutcome::Failed,
        SolveOutcome::Canceled,
    ];

    #[tokio::test]
    async fn an_answer_counts_when_it_has_gone_out() {
        let solves = CounterBy::default();
        for status in [Status::ok(""), Status::internal("exit code 1")] {
            let body = unary_with_trailers(b"", Some(status_trailers(&status)));
            let answer = Solving::begin(&solves).watch(Ok(Response::new(body)));
            answer.into_body().collect().await.unwrap();
        }
        drop(Solving::begin(&solves).watch(Err(Status::invalid_argument("no"))));
        assert_eq!(ALL.map(|outcome| solves.get(outcome)), [1, 2, 0]);
    }

    #[test]
    fn an_answer_that_nobody_waits_for_was_canceled() {
        let solves = CounterBy::default();
        drop(Solving::begin(&solves));
        let body = unary_with_trailers(b"", Some(status_trailers(&Status::ok(""))));
        drop(Solving::begin(&solves).watch(Ok(Response::new(body))));
        assert_eq!(ALL.map(|outcome| solves.get(outcome)), [0, 0, 2]);
    }
}
