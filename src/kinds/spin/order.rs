//! Which component is built before which, and what cannot be built because it would have to be composed.
//!
//! A component that imports from another's file is built after it. Must not compose anything: what needs it is refused.

use super::errors::SpinError;
use super::manifest::{Dependency, DependsOn};
use super::normal::Normal;
use crate::model::{SpinComponent, SpinSource};

/// Indices of components in the order of their builds: the manifest's, but for imports. A circle of imports is refused.
pub(super) fn build_order(path: &str, normal: &Normal) -> Result<Vec<usize>, SpinError> {
    let components = &normal.app.components;
    let mut order: Vec<usize> = Vec::with_capacity(components.len());
    let needs: Vec<Vec<usize>> = normal
        .facts
        .iter()
        .map(|facts| facts.dependencies.iter().flat_map(|on| providers(on, components)).collect())
        .collect();
    while order.len() < components.len() {
        let ready = (0..components.len()).find(|at| {
            !order.contains(at) && needs.get(*at).is_none_or(|needs| needs.iter().all(|n| order.contains(n)))
        });
        match ready {
            Some(at) => order.push(at),
            None => return Err(circle(path, normal, &needs, &order)),
        }
    }
    Ok(order)
}

/// The components whose file the dependency is.
fn providers(dependency: &Dependency, components: &[SpinComponent]) -> Vec<usize> {
    let provides = |component: &SpinComponent| match &dependency.on {
        DependsOn::Component(id) => component.id == *id,
        DependsOn::Path(path) => matches!(&component.source, SpinSource::Path(source) if source == path),
        DependsOn::Elsewhere => false,
    };
    components.iter().enumerate().filter(|(_, component)| provides(component)).map(|(at, _)| at).collect()
}

/// From a component that cannot come next along its imports until one is met again.
fn circle(path: &str, normal: &Normal, needs: &[Vec<usize>], done: &[usize]) -> SpinError {
    let mut seen: Vec<usize> = Vec::new();
    let mut at = (0..needs.len()).find(|at| !done.contains(at)).unwrap_or(0);
    while !seen.contains(&at) {
        seen.push(at);
        let next = needs.get(at).and_then(|needs| needs.iter().find(|need| !done.contains(need)));
        let Some(next) = next else { break };
        at = *next;
    }
    let names = seen.iter().skip_while(|seen| **seen != at).chain([&at]);
    let names: Vec<&str> = names.filter_map(|at| Some(normal.app.components.get(*at)?.id.as_str())).collect();
    let place =
        normal.facts.get(at).and_then(|facts| facts.dependencies.first()).map(|d| d.at).unwrap_or_default();
    SpinError::at(
        path,
        place,
        format!("components import each other in a circle: {}", names.join(" -> ")),
        "take one of these dependencies out",
    )
}

/// Refuses what would have to be composed out of several components.
pub(super) fn refuse_composition(path: &str, normal: &Normal) -> Result<(), SpinError> {
    for (component, facts) in normal.app.components.iter().zip(&normal.facts) {
        if let Some(dependency) = facts.dependencies.first() {
            return Err(SpinError::at(
                path,
                dependency.at,
                format!(
                    "the component {:?} has the dependency {:?}, and composing components is not done here",
                    component.id, dependency.name
                ),
                "compose it in build.command (`wac plug COMPONENT --plug DEPENDENCY -o OUT`), name OUT as source, and take dependencies out",
            ));
        }
    }
    match normal.middleware.first() {
        None => Ok(()),
        Some((trigger, role, at)) => Err(SpinError::at(
            path,
            *at,
            format!(
                "the trigger {trigger:?} has dependencies ({role}): middleware is composed by Spin's own program, which is not run here"
            ),
            "compose the middleware into the component in its build.command, and take dependencies out of the trigger",
        )),
    }
}
