//! The queue over time: what those who wait are told, who goes away, what is refused, and that no slot is ever lost.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use super::*;
use crate::error::{Kind, Report};
use proptest::prelude::*;

fn app(name: &str) -> AppName {
    name.parse().unwrap()
}

fn queue(running: usize, waiting: usize, waiting_per_app: usize) -> Queue {
    // told of every change
    Queue { tell_every: Duration::ZERO, ..Queue::new(Limits { running, waiting, waiting_per_app }) }
}

/// What a waiting push has been told.
#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<String>>>);

impl Screen {
    fn sink(&self) -> impl Fn(Place) + Send + 'static {
        let lines = self.0.clone();
        move |place| lines.lock().unwrap().push(place.to_string())
    }
    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// Polls `future` once.
async fn once<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    let mut future = Some(future);
    poll_fn(move |cx| {
        let polled = future.take().map(|future| future.poll(cx));
        Poll::Ready(match polled {
            Some(Poll::Ready(output)) => Some(output),
            _ => None,
        })
    })
    .await
}

#[tokio::test]
async fn a_waiting_push_is_told_its_place_and_what_runs_of_its_own_app() {
    let queue = queue(2, 10, 10);
    let first = queue.enter(&app("shop"), "shop main", |_| panic!("need not wait")).await.unwrap();
    let second = queue.enter(&app("blog"), "blog main", |_| panic!("need not wait")).await.unwrap();
    let (ahead, screen) = (Screen::default(), Screen::default());
    let (shop, blog) = (app("shop"), app("blog"));
    let mut other = pin!(queue.enter(&blog, "blog next", ahead.sink()));
    let mut waiting = pin!(queue.enter(&shop, "shop next", screen.sink()));
    assert!(once(other.as_mut()).await.is_none());
    assert!(once(waiting.as_mut()).await.is_none());
    // both have one at work; shop's turn is longer ago
    assert_eq!(screen.lines(), ["1st in line; running: shop main (0s), 1 build of another app"]);
    assert!(once(other.as_mut()).await.is_none());
    assert_eq!(ahead.lines().last().unwrap(), "2nd in line; running: blog main (0s), 1 build of another app");
    let snapshot = queue.snapshot();
    let names = |entries: &[Entry]| entries.iter().map(|e| e.what.clone()).collect::<Vec<_>>();
    assert_eq!(names(&snapshot.running), ["shop main", "blog main"]);
    assert_eq!(names(&snapshot.waiting), ["shop next", "blog next"]);
    drop(first);
    let slot = once(waiting.as_mut()).await.unwrap().unwrap();
    assert!(once(other.as_mut()).await.is_none());
    assert_eq!(ahead.lines().last().unwrap(), "1st in line; running: blog main (0s), 1 build of another app");
    drop((slot, second));
    assert!(once(other.as_mut()).await.is_some());
}

#[tokio::test]
async fn who_goes_away_leaves_the_line_and_the_others_move_up() {
    let queue = queue(1, 10, 10);
    let shop = app("shop");
    let busy = queue.enter(&shop, "shop main", |_| {}).await.unwrap();
    let screen = Screen::default();
    let mut leaver = Box::pin(queue.enter(&shop, "shop a", |_| {}));
    let mut second = pin!(queue.enter(&shop, "shop b", screen.sink()));
    assert!(once(leaver.as_mut()).await.is_none());
    assert!(once(second.as_mut()).await.is_none());
    drop(leaver);
    assert!(once(second.as_mut()).await.is_none());
    assert_eq!(
        screen.lines(),
        ["2nd in line; running: shop main (0s)", "1st in line; running: shop main (0s)"]
    );
    // one that leaves between its turn and hearing of it passes the turn on
    let mut late = pin!(queue.enter(&shop, "shop c", |_| {}));
    assert!(once(late.as_mut()).await.is_none());
    drop(busy);
    assert_eq!(queue.snapshot().running[0].what, "shop b");
    let mut second = Box::pin(second);
    drop(once(second.as_mut().as_mut()).await.unwrap().unwrap());
    assert!(once(late.as_mut()).await.is_some());
}

#[tokio::test]
async fn a_turn_whose_owner_has_gone_is_passed_on() {
    let queue = queue(1, 10, 10);
    let shop = app("shop");
    let busy = queue.enter(&shop, "shop main", |_| {}).await.unwrap();
    let mut first = Box::pin(queue.enter(&shop, "shop a", |_| {}));
    let mut second = pin!(queue.enter(&shop, "shop b", |_| {}));
    assert!(once(first.as_mut()).await.is_none());
    assert!(once(second.as_mut()).await.is_none());
    drop(busy);
    drop(first);
    assert!(once(second.as_mut()).await.is_some());
    assert_eq!(queue.snapshot().running.len() + queue.snapshot().waiting.len(), 0);
}

#[tokio::test]
async fn no_app_fills_the_queue_alone_and_nobody_overfills_it() {
    let queue = queue(1, 3, 2);
    let (shop, blog, api) = (app("shop"), app("blog"), app("api"));
    let _busy = queue.enter(&shop, "shop main", |_| {}).await.unwrap();
    let mut waiting: Vec<_> = [&shop, &shop, &blog].map(|a| Box::pin(queue.enter(a, "x", |_| {}))).into();
    for one in &mut waiting[..2] {
        assert!(once(one.as_mut()).await.is_none());
    }
    let refused = queue.enter(&shop, "x", |_| {}).await.err().unwrap();
    assert_eq!(refused.to_string(), "2 builds of shop are waiting already");
    assert!(once(waiting[2].as_mut()).await.is_none());
    let refused = queue.enter(&api, "x", |_| {}).await.err().unwrap();
    assert_eq!(refused, Full::Queue { waiting: 3 });
    assert_eq!(Report::from(refused).kind, Kind::Unavailable);
    waiting.pop();
    assert!(once(Box::pin(queue.enter(&api, "x", |_| {})).as_mut()).await.is_none());
}

#[tokio::test]
async fn news_come_every_few_seconds_at_most_and_the_last_one_does_come() {
    let queue = Queue { tell_every: Duration::from_millis(50), ..queue(1, 100, 100) };
    let shop = app("shop");
    let mut line: Vec<_> = Vec::new();
    let busy = queue.enter(&shop, "shop main", |_| {}).await.unwrap();
    for _ in 0..50 {
        let mut one = Box::pin(queue.enter(&shop, "shop x", |_| {}));
        assert!(once(one.as_mut()).await.is_none());
        line.push(one);
    }
    let screen = Screen::default();
    let (told, asking) = (screen.sink(), queue.clone());
    let last = tokio::spawn(async move { asking.enter(&app("shop"), "shop last", told).await });
    while screen.lines().is_empty() {
        tokio::task::yield_now().await;
    }
    let began = Instant::now();
    line.clear();
    while !screen.lines().last().unwrap().starts_with("1st") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let most = began.elapsed().as_millis() / 50 + 2;
    assert!(screen.lines().len() as u128 <= most, "{:?}", screen.lines());
    drop(busy);
    drop(last.await.unwrap().unwrap());
}

#[test]
fn places_read_like_sentences() {
    let own = vec![("shop main".to_owned(), Duration::from_secs(130))];
    let place = |position, own: &[_], others| Place { position, own: own.to_vec(), others }.to_string();
    assert_eq!(place(3, &own, 0), "3rd in line; running: shop main (2m)");
    assert_eq!(place(11, &own, 2), "11th in line; running: shop main (2m), 2 builds of other apps");
    assert_eq!(place(21, &[], 0), "21st in line; running: nothing yet");
    let five = vec![own[0].clone(); 5];
    assert!(place(112, &five, 1).ends_with("shop main (2m), 2 more of this app, 1 build of another app"));
}

/// One push's fate: how many times the others get to run while it waits, and while it builds; or that it goes away.
#[derive(Debug, Clone)]
struct Fate {
    app: u8,
    patience: Option<u8>,
    work: u8,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Pushes that come, wait, go away and build, in any interleaving: never more at work than allowed, every one that
    /// stays gets its turn, and nothing is left at the end.
    #[test]
    fn every_push_ends_and_no_slot_is_lost(
        fates in prop::collection::vec((0u8..4, prop::option::weighted(0.3, 0u8..8), 0u8..4)
            .prop_map(|(app, patience, work)| Fate { app, patience, work }), 1..60),
        running in 1usize..4,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        runtime.block_on(async {
            let queue = queue(running, 1_000, 1_000);
            let at_work = Arc::new(Mutex::new((0usize, 0usize)));
            let pushes: Vec<_> = fates.into_iter().map(|fate| {
                let (queue, at_work) = (queue.clone(), at_work.clone());
                tokio::spawn(async move {
                    let name = app(&format!("app{}", fate.app));
                    let entering = queue.enter(&name, "x", |_| {});
                    let slot = match fate.patience {
                        None => Some(entering.await.unwrap()),
                        Some(turns) => {
                            let bored = async { for _ in 0..turns { tokio::task::yield_now().await } };
                            tokio::select! { slot = entering => slot.ok(), () = bored => None }
                        }
                    };
                    if slot.is_some() {
                        let now = { let mut at = at_work.lock().unwrap(); at.0 += 1; at.1 += 1; at.0 };
                        assert!(now <= running, "{now} at work");
                        for _ in 0..fate.work { tokio::task::yield_now().await }
                        at_work.lock().unwrap().0 -= 1;
                    }
                    (fate.patience.is_none(), slot.is_some())
                })
            }).collect();
            for push in pushes {
                let done = tokio::time::timeout(Duration::from_secs(20), push).await;
                let (stayed, served) = done.expect("a push waits for ever").unwrap();
                assert!(served || !stayed);
            }
            let rest = queue.snapshot();
            assert_eq!((rest.running.len(), rest.waiting.len()), (0, 0));
        });
    }
}
