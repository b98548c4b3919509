//! The tag rule: shared tags stand at the newest accepted push that was built well, whatever ends when.

use proptest::prelude::*;

use super::*;
use crate::model::Generation;

/// What happens to the ref `main`, in order. Numbers choose among what is under way.
#[derive(Debug, Clone)]
enum Step {
    /// A push that moves ref and tags together; with false its build has failed, and nothing moves.
    Push { well: bool },
    /// A push that moves the ref at once.
    Detach,
    /// One of the detached builds ends.
    End { which: usize, well: bool },
    /// One ends, and the server dies in its commit point after the first shared tag.
    Crash { which: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => any::<bool>().prop_map(|well| Step::Push { well }),
        3 => Just(Step::Detach),
        4 => (any::<usize>(), prop::bool::weighted(0.7)).prop_map(|(which, well)| Step::End { which, well }),
        1 => any::<usize>().prop_map(|which| Step::Crash { which }),
    ]
}

async fn follow(world: &World, tagger: &Tagger, generation: &Generation) -> Result<Committed, TagError> {
    let commit = generation.commit.clone();
    let git = format!("git-{}", commit.short(12));
    let publication = publication(&world.fake.host, &commit, &[&git, "main", "latest"]);
    world.commit(tagger, vec![Move::following(generation.clone(), [publication])]).await
}

async fn run(steps: Vec<Step>) {
    let world = World::new().await;
    let mut tagger = world.tagger().await;
    let mut at = world.a.clone();
    // the model: the tags' generation and commit, and the builds under way
    let mut tags = (1, world.a.clone());
    let mut under_way: Vec<Generation> = Vec::new();
    for (n, step) in steps.into_iter().enumerate() {
        match step {
            Step::Push { well } => {
                if well {
                    let new = world.repository.commit(&format!("push {n}"));
                    let done = world.commit(&tagger, vec![world.to(&at, &new)]).await.unwrap();
                    tags = (done.generations[0].number, new.clone());
                    at = new;
                }
            }
            Step::Detach => {
                let new = world.repository.commit(&format!("detached {n}"));
                let alone = Move::of_ref(update(MAIN, &at, &new), None);
                let done = world.commit(&tagger, vec![alone]).await.unwrap();
                under_way.push(done.generations[0].clone());
                at = new;
            }
            Step::End { which, well } if !under_way.is_empty() => {
                let generation = under_way.remove(which % under_way.len());
                if !well {
                    continue;
                }
                let result = follow(&world, &tagger, &generation).await;
                if generation.number > tags.0 {
                    result.unwrap();
                    tags = (generation.number, generation.commit.clone());
                } else {
                    assert!(matches!(result, Err(TagError::Overtaken { .. })), "{result:?}");
                }
                let own = format!("git-{}", generation.commit.short(12));
                let index = index_of(&generation.commit).to_string();
                assert_eq!(world.fake.at("shop", &own), Some(index), "its own tag it gets in any case");
            }
            Step::Crash { which } if !under_way.is_empty() => {
                let generation = under_way.remove(which % under_way.len());
                let (failpoints, reached) = Failpoints::hang_at(Point::AfterFirstSharedTag);
                let dying = world.tagger_with(failpoints).await;
                let dies = generation.number > tags.0;
                tokio::select! {
                    result = follow(&world, &dying, &generation) => assert!(!dies, "{result:?}"),
                    () = reached.notified() => {}
                }
                // the spawned commit point of the dead server hangs for good, locks and all: they were its own
                tagger = world.tagger().await;
                world.recover(&tagger).await;
                if dies {
                    tags = (generation.number, generation.commit.clone());
                }
            }
            Step::End { .. } | Step::Crash { .. } => {}
        }
        assert_eq!(world.repository.at(MAIN), at, "the ref is at its newest accepted push");
        for tag in ["main", "latest"] {
            assert_eq!(world.fake.at("shop", tag), Some(index_of(&tags.1).to_string()), "step {n}: {tag}");
        }
        let known = tagger.shared.store.published_generation(&world.app.id, &MAIN.parse().unwrap()).await;
        assert_eq!(known.unwrap().generation, tags.0);
    }
    world.assert_clean(&tagger).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn tags_stand_at_the_newest_accepted_push_that_was_built(steps in prop::collection::vec(step(), 1..12)) {
        tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(run(steps));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_of_a_deleted_ref_do_not_follow_it() {
    let world = World::new().await;
    let tagger = world.tagger().await;
    let alone = Move::of_ref(update(MAIN, &world.a, &world.b), None);
    let generation = world.commit(&tagger, vec![alone]).await.unwrap().generations[0].clone();
    world.commit(&tagger, vec![Move::of_ref(update(MAIN, &world.b, &Sha::zero()), None)]).await.unwrap();
    let result = follow(&world, &tagger, &generation).await;
    assert!(matches!(result, Err(TagError::Gone { .. })), "{result:?}");
    // not even when there is a ref of that name again
    world.commit(&tagger, vec![Move::of_ref(update(MAIN, &Sha::zero(), &world.c), None)]).await.unwrap();
    let result = follow(&world, &tagger, &generation).await;
    assert!(matches!(result, Err(TagError::Overtaken { .. })), "{result:?}");
    assert_eq!(world.fake.at("shop", "main"), Some(index_of(&world.a).to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_in_place_is_counted_where_the_ref_stands() {
    let world = World::new().await;
    let tagger = world.tagger().await;
    let main: RefName = MAIN.parse().unwrap();
    let path = &world.repository.path;
    let counted = tagger.accept_in_place(&world.app, path, &main, &world.a).await.unwrap();
    assert_eq!(counted.number, 2);
    let moved = tagger.accept_in_place(&world.app, path, &main, &world.b).await.unwrap_err();
    assert!(matches!(moved, TagError::Ref(RefError::Moved { .. })), "{moved}");
    let none = "refs/heads/none".parse().unwrap();
    let gone = tagger.accept_in_place(&world.app, path, &none, &world.a).await.unwrap_err();
    assert!(matches!(gone, TagError::Gone { .. }), "{gone}");
}
