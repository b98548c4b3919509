//! A `SolveRequest` as the control service's message: every field of ours has its place on the wire, and a request that
//! no daemon could serve is refused here, before anything is sent.

use std::collections::BTreeMap;

use lemnos_proto::control as wire;

use super::cache::CacheEntry;
use super::policy;
use super::{SolveError, SolveRequest};
use crate::buildkit::graph;

/// What `Client::solve` needs.
pub(super) fn one_of_frontend_and_definition(request: &SolveRequest) -> Result<(), SolveError> {
    match (request.frontend.is_empty(), request.definition.is_some()) {
        (true, false) => Err(SolveError::invalid(
            "nothing to solve: set a frontend, or a definition; a build function goes through `Client::build`",
        )),
        (false, true) => Err(SolveError::invalid(format!(
            "a definition is solved without a frontend, and {:?} is set: give it as a frontend input instead",
            request.frontend
        ))),
        _ => Ok(()),
    }
}

/// What `Client::build` needs.
pub(super) fn neither_frontend_nor_definition(request: &SolveRequest) -> Result<(), SolveError> {
    match request.frontend.is_empty() && request.definition.is_none() && request.frontend_inputs.is_empty() {
        true => Ok(()),
        false => Err(SolveError::invalid(
            "a build function names frontend, inputs and definitions in its own solves: the request must not",
        )),
    }
}

pub(super) fn message(
    reference: &str,
    session: &str,
    request: SolveRequest,
) -> Result<wire::SolveRequest, SolveError> {
    let asks = request.policy_session || request.session.judge.is_some();
    let chooses = request.session_exporter || request.session.chooser.is_some();
    let invalid = |reason: String| SolveError::invalid(reason);
    request.cache_imports.iter().try_for_each(CacheEntry::check_import).map_err(invalid)?;
    request.cache_exports.iter().try_for_each(CacheEntry::check_export).map_err(invalid)?;
    let mut frontend_attrs = request.frontend_attrs;
    if request.definition.is_none() && !request.cache_imports.is_empty() {
        // a frontend does not see the request's cache entries; it reads them from this attribute
        let imports = serde_json::to_string(&request.cache_imports)
            .map_err(|e| SolveError::invalid(format!("cache imports: {e}")))?;
        frontend_attrs.entry("cache-imports".into()).or_insert(imports);
    }
    let exporters: Vec<wire::Exporter> =
        request.exporters.into_iter().map(|e| wire::Exporter { r#type: e.kind, attrs: e.attrs }).collect();
    let (exporter_deprecated, exporter_attrs_deprecated) = match exporters.first() {
        Some(first) => (first.r#type.clone(), first.attrs.clone()),
        None => (String::new(), BTreeMap::new()),
    };
    Ok(wire::SolveRequest {
        r#ref: reference.to_owned(),
        session: session.to_owned(),
        frontend: request.frontend,
        frontend_attrs,
        frontend_inputs: graph::inputs(request.frontend_inputs),
        definition: request.definition.map(graph::spelled_out),
        cache: Some(wire::CacheOptions {
            exports: entries(request.cache_exports),
            imports: entries(request.cache_imports),
        }),
        entitlements: request.entitlements,
        internal: request.internal,
        source_policy: policy::message(request.source_rules, request.source_policy),
        source_policy_session: if asks { session.to_owned() } else { String::new() },
        exporters,
        exporter_deprecated,
        exporter_attrs_deprecated,
        enable_session_exporter: chooses,
        compatibility_version: request.compatibility_version,
        proxy_network: request.proxy_network,
    })
}

fn entries(entries: Vec<CacheEntry>) -> Vec<wire::CacheOptionsEntry> {
    entries.into_iter().map(|e| wire::CacheOptionsEntry { r#type: e.kind, attrs: e.attrs }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Exporter;
    use super::*;

    fn registry() -> CacheEntry {
        CacheEntry::registry("r.example/c")
    }

    #[test]
    fn a_frontend_is_told_of_cache_imports() {
        let request = SolveRequest {
            frontend: "dockerfile.v0".into(),
            cache_imports: vec![registry()],
            ..Default::default()
        };
        let message = message("r", "s", request).unwrap();
        assert_eq!(
            message.frontend_attrs["cache-imports"],
            r#"[{"Type":"registry","Attrs":{"ref":"r.example/c"}}]"#
        );
        assert_eq!(message.cache.unwrap().imports.len(), 1);
    }

    #[test]
    fn a_definition_goes_without_that_attribute() {
        let request = SolveRequest {
            definition: Some(lemnos_proto::pb::Definition::default()),
            cache_imports: vec![registry()],
            ..Default::default()
        };
        let message = message("r", "s", request).unwrap();
        assert!(message.frontend_attrs.is_empty() && message.definition.is_some());
    }

    #[test]
    fn all_exporters_are_named_and_the_first_once_more_for_old_daemons() {
        let exporter = |kind: &str| Exporter { kind: kind.into(), ..Default::default() }.with("a", kind);
        let request = SolveRequest {
            frontend: "dockerfile.v0".into(),
            exporters: vec![exporter("image"), exporter("oci")],
            policy_session: true,
            ..Default::default()
        };
        let message = message("r", "s", request).unwrap();
        let kinds: Vec<&str> = message.exporters.iter().map(|e| e.r#type.as_str()).collect();
        assert_eq!((kinds, message.exporter_deprecated.as_str()), (vec!["image", "oci"], "image"));
        assert_eq!(message.exporter_attrs_deprecated["a"], "image");
        assert_eq!(message.source_policy_session, "s");
    }

    #[test]
    fn what_no_daemon_could_serve_is_refused() {
        let definition = Some(lemnos_proto::pb::Definition::default());
        let frontend = "dockerfile.v0".to_owned();
        let both = SolveRequest { frontend, definition, ..Default::default() };
        for (request, word) in
            [(SolveRequest::default(), "nothing to solve"), (both.clone(), "frontend input")]
        {
            let error = one_of_frontend_and_definition(&request).unwrap_err();
            assert!(error.message.contains(word), "{error}");
        }
        assert!(neither_frontend_nor_definition(&both).is_err());
        let nameless = CacheEntry { kind: "registry".into(), ..Default::default() };
        let request =
            SolveRequest { frontend: "f".into(), cache_exports: vec![nameless], ..Default::default() };
        let error = message("r", "s", request).unwrap_err();
        assert!(error.message.contains("needs `ref`"), "{error}");
    }
}
