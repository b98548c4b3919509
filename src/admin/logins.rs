//! Registry logins: what may be kept, before it is.

use super::Response;
use crate::error::Report;
use crate::model::{AppName, RegistryLogin, RegistryPlace, Secret};
use crate::store::Store;

/// Longer than any registry's user names.
const USERNAME_LIMIT_BYTES: usize = 255;

pub(super) async fn log_in(
    store: &Store,
    place: RegistryPlace,
    app: Option<AppName>,
    username: String,
    secret: &Secret,
) -> Result<Response, Report> {
    // what Basic authentication can carry: RFC 7617 ends the name at the first colon
    let bad = |c: char| c.is_control() || c == ':';
    if username.is_empty() || username.len() > USERNAME_LIMIT_BYTES || username.chars().any(bad) {
        return Err(Report::user(
            "the user name is empty, too long, or has a ':' or a control character in it",
        )
        .hint("give the registry's user name with -u USER; for an identity token, -u '<token>'"));
    }
    // the secret came as data: whatever carried it here may not have parsed it
    Secret::parse(secret.expose())
        .map_err(|problem| Report::user(format!("the password cannot be used: {problem}")))?;
    let new = store.put_login(app.as_ref(), &place, &username, secret).await?;
    let added_at_ms = crate::store::now_ms();
    let login = RegistryLogin { place, app, username, added_at_ms };
    Ok(Response::RegistryLoggedIn { login, replaced: !new })
}
