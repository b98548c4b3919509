//! Pushes side by side: one wins whole.

use super::*;

/// Two pushes from A at once, with every step of either delayed in turn: one wins, the other is refused, and nothing is mixed.
#[tokio::test]
async fn of_two_pushes_of_one_ref_one_wins_whole() {
    let slow = Duration::from_millis(15);
    for round in 0..12 {
        let world = World::new().await;
        let tagger = world.tagger().await;
        for (at, target) in ["main", "latest", &format!("git-{}", world.b.short(12))].into_iter().enumerate()
        {
            if round & (1 << at) != 0 {
                world.fake.fail(if round < 8 { "PUT" } else { "HEAD" }, target, 1, Fault::Slow(slow));
            }
        }
        let (b, c) = (world.to(&world.a, &world.b), world.to(&world.a, &world.c));
        let (first, second) = if round % 2 == 0 { (b, c) } else { (c, b) };
        let (first, second) =
            futures::join!(world.commit(&tagger, vec![first]), world.commit(&tagger, vec![second]));
        assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
        let lost = first.err().or(second.err()).unwrap();
        assert!(matches!(lost, TagError::Ref(RefError::Moved { .. })), "{lost}");
        let winner = world.repository.at(MAIN);
        assert!(winner == world.b || winner == world.c);
        world.assert_all_at(&winner);
        world.assert_clean(&tagger).await;
    }
}

/// As two servers would be, or a `git` on the machine: no common locks but git's own.
#[tokio::test]
async fn of_two_taggers_one_wins_whole() {
    for _ in 0..6 {
        let world = World::new().await;
        let [one, other] = [world.tagger().await, world.tagger().await];
        let (first, second) = futures::join!(
            world.commit(&one, vec![world.to(&world.a, &world.b)]),
            world.commit(&other, vec![world.to(&world.a, &world.c)])
        );
        assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
        world.assert_all_at(&world.repository.at(MAIN));
        world.assert_clean(&one).await;
    }
}

#[tokio::test]
async fn a_chain_of_pushes_under_faults_ends_at_the_last_accepted() {
    let world = World::new().await;
    let tagger = world.tagger().await;
    let faults = [Fault::Status(504, "", ""), Fault::Reset, Fault::ResetAfterEffect, Fault::Forget];
    let mut at = world.a.clone();
    for step in 0..24_usize {
        let target = ["main", "latest"][step / 4 % 2];
        world.fake.fail("PUT", target, step % 3, faults[step % 4].clone());
        let next = world.repository.commit(&format!("step {step}"));
        if world.commit(&tagger, vec![world.to(&at, &next)]).await.is_ok() {
            at = next;
        }
        assert_eq!(world.repository.at(MAIN), at, "accepted is moved, refused is not");
        world.fake.heal();
    }
    world.recover(&tagger).await;
    world.assert_all_at(&at);
    world.assert_clean(&tagger).await;
    assert_ne!(at, world.a);
}

/// Refs at one commit share its `git-…` tag; neither waits for ever, and the tag stands at one of the two indexes.
#[tokio::test]
async fn refs_at_one_commit_do_not_trip_over_their_common_tag() {
    let world = World::new().await;
    let tagger = world.tagger().await;
    let names: Vec<String> = (0..8).map(|n| format!("b{n}")).collect();
    let pushes = names.iter().map(|name| {
        let one = world.with_tags(&format!("refs/heads/{name}"), &Sha::zero(), &world.b, &[name.as_str()]);
        world.commit(&tagger, vec![one])
    });
    for result in futures::future::join_all(pushes).await {
        assert_eq!(result.unwrap().pending, []);
    }
    for name in &names {
        assert_eq!(world.fake.at("shop", name), Some(index_of(&world.b).to_string()));
    }
    world.assert_clean(&tagger).await;
}
