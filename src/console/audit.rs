//! `lemnos audit`: who did what, or was kept from it.

use super::table::time_text;
use super::{Desk, print_json, print_text, unexpected};
use crate::admin::{Request, Response};
use crate::audit::{Event, Filter, Logged, Verdict};
use crate::error::{Kind, Report};
use crate::event::{plain_json, plain_line};

/// How long the server may wait before it says that there is nothing new.
const WAIT_MS: u64 = 20_000;
/// Entries of one answer while following.
const PAGE: u32 = 1_000;

/// Every login, push, change and refusal, oldest first.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on with what comes, until interrupted.
    #[arg(short, long, conflicts_with = "verify")]
    follow: bool,
    /// Only since then: 90s, 30m, 12h, 7d ago, or 2026-11-21, or 2026-11-21T08:00:00Z.
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Only of this app.
    #[arg(long)]
    app: Option<String>,
    /// Only by this user.
    #[arg(long)]
    user: Option<String>,
    /// Only of the request or push with this id.
    #[arg(long, value_name = "ID")]
    request: Option<String>,
    /// At most this many, the newest.
    #[arg(long, default_value_t = 100, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Check that no entry was changed, removed or put in; exit 1 if one was.
    #[arg(long)]
    verify: bool,
    /// One JSON object an entry and line.
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args, desk: &mut dyn Desk) -> Result<u8, Report> {
    if args.verify {
        return verify(desk, args.json).await;
    }
    let filter = Filter {
        after_seq: None,
        since_ms: args.since.as_deref().map(|text| since(text, crate::audit::now_ms())).transpose()?,
        app: args.app.as_deref().map(str::parse).transpose()?,
        user: args.user.as_deref().map(str::parse).transpose()?,
        request: args.request.clone(),
        limit: args.limit,
    };
    show(&args, desk, filter).await?;
    Ok(0)
}

async fn show(args: &Args, desk: &mut dyn Desk, mut filter: Filter) -> Result<(), Report> {
    let mut wait_ms = 0;
    loop {
        let (logged, grows) = match desk.execute(Request::Audit { filter: filter.clone(), wait_ms }).await? {
            Response::Audit { entries, grows } => (entries, grows),
            other => return Err(unexpected(&other)),
        };
        let text: String = logged.iter().map(|one| line(one, args.json)).collect::<Result<_, _>>()?;
        if desk.print(&text).await?.is_break() || !args.follow {
            return Ok(());
        }
        if !grows {
            return Err(Report::new(Kind::Unavailable, "no server runs, so nothing more comes")
                .hint("leave out --follow to see what there is"));
        }
        let last = logged.last().map(|one| one.seq);
        filter = Filter { after_seq: last.or(filter.after_seq).or(Some(0)), limit: PAGE, ..filter };
        wait_ms = WAIT_MS;
    }
}

fn line(logged: &Logged, json: bool) -> Result<String, Report> {
    if json {
        let text =
            serde_json::to_string(logged).map_err(|e| Report::internal(format!("writing JSON: {e}")))?;
        return Ok(format!("{}\n", plain_json(&text)));
    }
    let entry = &logged.entry;
    let mut line =
        format!("{}  {:<12} {}", time_text(entry.at_ms), entry.actor.to_string(), what(&entry.event));
    let mut more = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            line.push_str(&format!("  {name}={value}"));
        }
    };
    more("app", entry.app.as_ref().map(ToString::to_string));
    more("from", entry.peer.map(|peer| peer.to_string()));
    more("key", entry.key.as_ref().map(ToString::to_string));
    more("request", entry.request.clone());
    more("times", (entry.times > 1).then(|| entry.times.to_string()));
    more("detail", entry.detail.clone());
    Ok(format!("{}\n", plain_line(&line)))
}

/// An event in words.
fn what(event: &Event) -> String {
    match event {
        Event::LoggedIn { .. } => "logged in".to_owned(),
        Event::LoginRefused { ssh_user, reason, .. } => format!("login refused: {reason} (as {ssh_user:?})"),
        Event::ConnectionDropped { reason } => format!("connection dropped: {reason}"),
        Event::ConnectionCut { reason } => format!("connection cut: {reason}"),
        Event::ChannelRefused { what } => format!("refused: {what}"),
        Event::RequestAccepted { service } => service.clone(),
        Event::RequestRefused { service, reason } => {
            format!("{} refused: {reason}", service.as_deref().unwrap_or("request"))
        }
        Event::PushRefused { reason } => format!("push refused: {reason}"),
        Event::HookRefused { reason } => format!("hook refused: {reason}"),
        Event::PushAnswered { reference, old, new, refused } => {
            let short = |id: &str| id.get(..12).unwrap_or(id).to_owned();
            let moved = format!("{reference} {}..{}", short(old), short(new));
            match refused {
                None => format!("pushed {moved}"),
                Some(reason) => format!("push of {moved} refused: {reason}"),
            }
        }
        Event::Administered { action, target, refused } => {
            let target = target.as_ref().map(|target| format!(" {target}")).unwrap_or_default();
            match refused {
                None => format!("{action}{target}"),
                Some(reason) => format!("{action}{target} refused: {reason}"),
            }
        }
        Event::Lost { entries } => format!("{entries} entries could not be written"),
        Event::Purged { through, entries, .. } => {
            format!("{entries} entries up to {through} removed by retention")
        }
    }
}

async fn verify(desk: &mut dyn Desk, json: bool) -> Result<u8, Report> {
    let verdict = match desk.execute(Request::VerifyAudit).await? {
        Response::AuditVerified(verdict) => verdict,
        other => return Err(unexpected(&other)),
    };
    if json {
        print_json(desk, &verdict).await?;
    } else {
        print_text(desk, &said(&verdict)).await?;
    }
    Ok(u8::from(!verdict.faults.is_empty()))
}

fn said(verdict: &Verdict) -> String {
    let Verdict { entries, first, last, hash, faults } = verdict;
    let mut text = match faults.len() {
        0 => format!("{entries} entries, {first} to {last}: as they were written\n"),
        _ => format!("{entries} entries, {first} to {last}: not as they were written\n"),
    };
    for fault in faults {
        text.push_str(&format!("  {}\n", plain_line(fault)));
    }
    text.push_str(&format!("the chain ends in {hash}\n"));
    text
}

/// Unix milliseconds of a point of time as people write one.
fn since(text: &str, now_ms: i64) -> Result<i64, Report> {
    use time::format_description::well_known::Rfc3339;
    let refused = || {
        Report::user(format!("{text:?} is no point of time"))
            .hint("write 90s, 30m, 12h or 7d for so long ago, or 2026-11-21, or 2026-11-21T08:00:00Z")
    };
    let unit = |last| match last {
        's' => Some(1_000),
        'm' => Some(60_000),
        'h' => Some(3_600_000),
        'd' => Some(86_400_000),
        _ => None,
    };
    if let Some(unit_ms) = text.chars().last().and_then(unit)
        && let Ok(count) = text.get(..text.len() - 1).unwrap_or_default().parse::<u32>()
    {
        return Ok(now_ms.saturating_sub(i64::from(count).saturating_mul(unit_ms)));
    }
    let whole = if text.contains('T') { text.to_owned() } else { format!("{text}T00:00:00Z") };
    let at = time::OffsetDateTime::parse(&whole, &Rfc3339).map_err(|_| refused())?;
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Entry, Who};

    #[test]
    fn points_of_time_are_read_as_people_write_them() {
        let now = 1_795_248_153_999;
        assert_eq!(since("90s", now).unwrap(), now - 90_000);
        assert_eq!(since("7d", now).unwrap(), now - 7 * 86_400_000);
        assert_eq!(since("1970-01-02", now).unwrap(), 86_400_000);
        assert_eq!(since("1970-01-01T00:00:01Z", now).unwrap(), 1_000);
        assert_eq!(since("1970-01-01T01:00:01+01:00", now).unwrap(), 1_000);
        for bad in ["", "s", "-1s", "1w", "yesterday", "2026-13-01", "ü", "5 m"] {
            assert!(since(bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_entry_is_one_line() {
        let event = Event::PushAnswered {
            reference: "refs/heads/main".to_owned(),
            old: "0".repeat(40),
            new: "a".repeat(40),
            refused: Some("build failed\u{1b}[2J".to_owned()),
        };
        let entry = Entry::new(0, Who::User { name: "ada".parse().unwrap() }, event)
            .app(Some("shop".parse().unwrap()))
            .peer("192.0.2.1:9".parse().unwrap())
            .request("r1")
            .times(2);
        let text = line(&Logged { seq: 1, entry }, false).unwrap();
        insta::assert_snapshot!(text.trim_end(), @"1970-01-01 00:00:00  ada          push of refs/heads/main 000000000000..aaaaaaaaaaaa refused: build failed  app=shop  from=192.0.2.1:9  request=r1  times=2");
    }
}
