//! Traces by OTLP, where OpenTelemetry's own environment variables ask for
//! them.
//!
//! `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` turns
//! them on, and so does `OTEL_TRACES_EXPORTER=otlp`; `OTEL_TRACES_EXPORTER=none`
//! and `OTEL_SDK_DISABLED=true` turn them off. The exporter reads the rest of
//! the `OTEL_` variables itself. It speaks gRPC, and nothing else.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// What this process is called in traces, unless `OTEL_SERVICE_NAME` says.
const SERVICE: &str = "layerd";

/// Makes a span part of the trace that a request's headers name (W3C Trace
/// Context), as the one below the client's. It must not have been entered yet;
/// where nothing is traced, or the client does not trace, it stays as it is.
pub fn continued(span: &Span, headers: &HeaderMap) {
    let parent = TraceContextPropagator::new().extract(&Headers(headers));
    if parent.span().span_context().is_valid() {
        // Without a tracer, or too late, the span stays as it is.
        let _ = span.set_parent(parent);
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

/// Puts the trace that a span is part of into a request's headers, so that the
/// other side's spans are below it; nothing where nothing is traced.
pub fn sent_with(span: &Span, headers: &mut HeaderMap) {
    TraceContextPropagator::new().inject_context(&span.context(), &mut Sent(headers));
}

struct Sent<'a>(&'a mut HeaderMap);

impl Injector for Sent<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

/// Why there are no traces though they were asked for.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// Another exporter than OTLP.
    #[error("OTEL_TRACES_EXPORTER={0}: layerd has otlp and none")]
    Exporter(String),
    /// Another protocol than gRPC.
    #[error("OTEL_EXPORTER_OTLP_PROTOCOL={0}: layerd has grpc")]
    Protocol(String),
    /// An endpoint that is none, most likely.
    #[error("the OTLP exporter: {0}")]
    Exporting(#[from] ExporterBuildError),
}

/// Sends traces until it is dropped, and then what is left.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Starts to send, if the environment asks for it; to be called in a
    /// runtime.
    pub fn start() -> Result<Option<Self>, TracesError> {
        if !asked(|name| std::env::var(name).ok().filter(|text| !text.is_empty()))? {
            return Ok(None);
        }
        let exporter = SpanExporter::builder().with_tonic().build()?;
        let resource = Resource::builder();
        let resource = if std::env::var_os("OTEL_SERVICE_NAME").is_some() {
            resource
        } else {
            resource.with_service_name(SERVICE)
        };
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .build();
        Ok(Some(Self(provider)))
    }

    /// What spans are given to.
    pub fn tracer(&self) -> SdkTracer {
        self.0.tracer(SERVICE)
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// Whether the environment asks for traces, in a way that can be served.
fn asked(variable: impl Fn(&str) -> Option<String>) -> Result<bool, TracesError> {
    if variable("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
        return Ok(false);
    }
    let endpoint = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        .or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"));
    let wanted = match variable("OTEL_TRACES_EXPORTER").as_deref() {
        None => endpoint.is_some(),
        Some("none") => false,
        Some("otlp") => true,
        Some(other) => return Err(TracesError::Exporter(other.to_owned())),
    };
    let protocol = variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        .or_else(|| variable("OTEL_EXPORTER_OTLP_PROTOCOL"));
    match protocol {
        Some(other) if wanted && other != "grpc" => Err(TracesError::Protocol(other)),
        _ => Ok(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<bool, TracesError> {
        asked(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_standard_variables_turn_traces_on_and_off() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");
        assert!(!with(&[]).unwrap());
        assert!(with(&[endpoint]).unwrap());
        assert!(with(&[("OTEL_TRACES_EXPORTER", "otlp")]).unwrap());
        assert!(!with(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]).unwrap());
        assert!(!with(&[endpoint, ("OTEL_SDK_DISABLED", "true")]).unwrap());
    }

    #[test]
    fn what_can_not_be_served_is_said() {
        let error = with(&[("OTEL_TRACES_EXPORTER", "zipkin")]).unwrap_err();
        assert!(error.to_string().contains("zipkin"), "{error}");
        let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        let error = with(&[("OTEL_TRACES_EXPORTER", "otlp"), http]).unwrap_err();
        assert!(error.to_string().contains("grpc"), "{error}");
        assert!(!with(&[http]).unwrap());
    }
}
