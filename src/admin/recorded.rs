//! What is administered goes on record: with the change itself where the store is changed, else before the answer.
//!
//! Each request says here in which words. Keys' texts, passwords, secrets' and settings' values are never among them.

use super::{BuildersRequest, Caller, Context, Request, Response};
use crate::audit::{self, Entry, Event, Who};
use crate::error::Report;
use crate::model::AppName;
use crate::store::Store;

/// A request as the record names it.
struct Words {
    action: &'static str,
    app: Option<AppName>,
    target: Option<String>,
}

fn words(request: &Request) -> Words {
    let of = |action| Words { action, app: None, target: None };
    let on = |action, app: &AppName| Words { app: Some(app.clone()), ..of(action) };
    let to = |words: Words, target: &dyn ToString| Words { target: Some(target.to_string()), ..words };
    match request {
        Request::WhoAmI => of("who_am_i"),
        Request::AddUser { user, role } => to(of("add_user"), &format!("{user} {role}")),
        Request::ListUsers => of("list_users"),
        Request::RemoveUser { user } => to(of("remove_user"), user),
        Request::SetRole { user, role } => to(of("set_role"), &format!("{user} {role}")),
        Request::AddDeployKey { app, access, .. } => to(on("add_deploy_key", app), &access.as_str()),
        Request::AddKeys { user, .. } => to(of("add_keys"), user),
        Request::ImportKeys { user, from, .. } => to(of("import_keys"), &format!("{user} {from}")),
        Request::ListKeys { user } => {
            Words { target: user.as_ref().map(ToString::to_string), ..of("list_keys") }
        }
        Request::RemoveKey { fingerprint } => to(of("remove_key"), fingerprint),
        Request::CreateApp { app } => on("create_app", app),
        Request::ListApps => of("list_apps"),
        Request::ShowApp { app } => on("show_app", app),
        Request::DestroyApp { app } => on("destroy_app", app),
        Request::Grant { app, user, access } => to(on("grant", app), &format!("{user} {}", access.as_str())),
        Request::Revoke { app, user } => to(on("revoke", app), user),
        Request::SetApp { app, changes } => {
            let names: Vec<_> = changes.iter().map(|(name, _)| name.as_str()).collect();
            to(on("set_app", app), &names.join(" "))
        }
        Request::ListBuilds { app, .. } => Words { app: app.clone(), ..of("list_builds") },
        Request::ShowBuild { build } => to(of("show_build"), build),
        Request::ShowResolved { build } => to(of("show_resolved"), build),
        Request::BuildEvents { build, .. } => to(of("build_events"), build),
        Request::RegistryLogin { app, place, .. } => {
            Words { app: app.clone(), ..to(of("registry_login"), place) }
        }
        Request::RegistryLogout { app, place } => {
            Words { app: app.clone(), ..to(of("registry_logout"), place) }
        }
        Request::RegistryLogins => of("registry_logins"),
        Request::AddSecret { app, name, used_as, .. } => {
            to(on("add_secret", app), &format!("{name} {}", used_as.as_str()))
        }
        Request::ListSecrets { app } => on("list_secrets", app),
        Request::RemoveSecret { app, name } => to(on("remove_secret", app), name),
        Request::CancelBuild { build } => to(of("cancel_build"), build),
        Request::RetryBuild { build } => to(of("retry_build"), build),
        Request::PlanApp { app, what } => to(on("plan_app", app), what),
        Request::Builders { what } => match what {
            BuildersRequest::List => of("list_builders"),
            BuildersRequest::Add { spec } => to(of("add_builder"), spec),
            BuildersRequest::Drain { name, drained: true } => to(of("drain_builder"), name),
            BuildersRequest::Drain { name, drained: false } => to(of("resume_builder"), name),
            BuildersRequest::Remove { name } => to(of("remove_builder"), name),
        },
        Request::Audit { .. } => of("audit"),
        Request::VerifyAudit => of("verify_audit"),
    }
}

/// The entry for a request that goes well.
fn entry(caller: &Caller, request: &Request) -> Entry {
    let Words { action, app, target } = words(request);
    let event = Event::Administered { action: action.to_owned(), target, refused: None };
    audit::entry(caller.who(), event).key(caller.key().cloned()).app(app)
}

fn refused(mut entry: Entry, report: &Report) -> Entry {
    if let Event::Administered { refused, .. } = &mut entry.event {
        *refused = Some(report.message.clone());
    }
    entry
}

/// Whether a request that goes well is worth an entry. Who follows the record would otherwise be followed by it.
fn worth_it(actor: &Who, request: &Request) -> bool {
    let reads_on = matches!(request, Request::Audit { filter, .. } if filter.after_seq.is_some());
    request.writes() || (*actor != Who::Operator && !reads_on)
}

/// Does a request, and has what came of it on record before it returns.
pub(super) async fn execute(
    store: &Store,
    context: &Context,
    caller: &Caller,
    request: Request,
) -> Result<Response, Report> {
    let entry = entry(caller, &request);
    let worth_it = worth_it(&entry.actor, &request);
    if !request.writes() {
        let result = super::perform(store, context, caller, request).await;
        match &result {
            // who only looks does not wait
            Ok(_) if worth_it => context.trail.note(entry),
            Err(report) => write(store, refused(entry, report)).await,
            Ok(_) => {}
        }
        return result;
    }
    let (noting, note) = store.noting(entry.clone());
    let result = super::perform(&noting, context, caller, request).await;
    let owed = match &result {
        // done without a change in the store: nothing has taken the entry along
        Ok(_) => note.left(),
        Err(report) => Some(refused(entry, report)),
    };
    if let Some(owed) = owed {
        write(store, owed).await;
    }
    result
}

async fn write(store: &Store, entry: Entry) {
    if let Err(error) = store.append_audit(&[entry]).await {
        tracing::error!(%error, "what was administered is not on record");
    }
}
