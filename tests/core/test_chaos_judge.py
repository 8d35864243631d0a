"""The judge of a fleet's ledger finds every broken promise, and nothing where none is broken."""

from bench.chaos_judge import Place, Promise, Trouble, judge, read

PROMISE = Promise(attempts_limit=4, commit_late_s=2.0)
S = 1_000_000_000


class Book:
    """A ledger that is written batch by batch."""

    def __init__(self, source="kinesis"):
        self.source = source
        self.lines = []

    def batch(self, start_s, end_s, *numbers, replica="a", process=1, bad=(), clash=(), key=0):
        """One batch; without an end its worker ended first."""
        request = f"r{len(self.lines)}"

        def write(at_s, each, phase):
            self.lines.append(
                f"{int(at_s * S)} {replica} {process} {request} {self.source} {key} {each} s:{each * 10} {phase}\n"
            )

        for each in numbers:
            write(start_s, each, "S")
        for each in clash:
            write(start_s, each, "clash")
        for each in numbers if end_s is not None else ():
            write(end_s, each, "bad" if each in bad else "ok")
        return self

    def judge(self, *troubles, sent=None, poison=(), given_up=(), commits=None):
        deliveries = read(self.lines)
        numbers = sent or {place.number for delivery in deliveries for place in delivery.places}
        return judge(
            self.source,
            {Place(self.source, 0, each): each in poison for each in numbers},
            deliveries,
            {Place(self.source, 0, each): int(at_s * S) for each, at_s in dict(given_up).items()},
            troubles,
            PROMISE,
            commits,
        )


def trouble(kind, from_s, until_s, replica="", workers=()):
    return Trouble(kind, replica, int(from_s * S), int(until_s * S), workers)


def test_what_is_in_order_and_over_breaks_nothing():
    verdict = Book().batch(1, 2, 1, 2).batch(3, 4, 3, replica="b", process=2).judge()
    assert not verdict.violations
    assert (verdict.produced, verdict.delivered, verdict.deliveries, verdict.finished) == (3, 3, 2, 3)


def test_a_record_that_never_came_is_lost():
    [violation] = Book().batch(1, 2, 1, 2).judge(sent=[1, 2, 3]).violations
    assert violation == "lost: kinesis 0/3"


def test_a_record_whose_worker_ended_is_lost_unless_it_comes_again():
    book = Book().batch(1, None, 1)
    assert book.judge().violations == ["lost: kinesis 0/1"]
    verdict = book.batch(3, 4, 1, process=2).judge()
    assert not verdict.violations
    assert verdict.cut_off == 1


def test_a_line_that_a_kill_has_cut_off_is_passed_over():
    book = Book().batch(1, 2, 1)
    book.lines.append("12345 a 1 r")
    assert not book.judge().violations


def test_what_is_stored_as_failed_is_the_poison():
    book = Book().batch(1, 2, 1, bad=[1])
    assert not book.judge(poison=[1], given_up={1: 2}).violations
    assert book.judge(given_up={1: 2}).violations == ["stored as failed, but good: kinesis 0/1"]
    assert book.judge(poison=[1]).violations == ["lost: kinesis 0/1"]


def test_what_nobody_sent_is_told():
    book = Book().batch(1, 2, 1, 2)
    assert book.judge(sent=[1]).violations == ["never sent: kinesis 0/2"]
    assert book.judge(given_up={7: 3}).violations == ["never sent: kinesis 0/7"]


def test_a_key_that_another_process_has_is_an_overlap():
    [violation] = Book().batch(1, 3, 1).batch(2, 4, 2, process=2, clash=[2]).judge().violations[:1]
    assert violation.startswith("overlap: kinesis 0/2 ran elsewhere")


def test_a_record_that_begins_before_the_one_before_is_over_is_out_of_order():
    book = Book().batch(1, 3, 1).batch(2, 4, 2, process=2)
    [violation] = book.judge().violations
    assert violation.startswith("out of order: kinesis 0/2")
    assert not Book("sqs").batch(1, 3, 1).batch(2, 4, 2, process=2).judge().violations


def test_a_queue_that_hands_out_what_is_behind_hidden_messages_is_counted_apart():
    def judged(**second):
        book = Book("fifo").batch(1, 2, 1, 2, bad=[1, 2]).batch(3, 4, 1).batch(5, 6, 3, **second)
        return book.batch(9, 10, 2).judge()

    elsewhere = judged(replica="b", process=2)
    assert not elsewhere.violations
    assert elsewhere.passed_hidden == 1
    [violation] = judged().violations
    assert violation.startswith("out of order: fifo 0/3")


def test_a_batch_out_of_order_is_told():
    violations = Book().batch(1, 2, 2, 1).judge().violations
    assert [violation.partition(":")[0] for violation in violations] == ["out of order", "out of order in a batch"]


def test_after_a_crash_a_key_goes_on_at_its_first_unfinished_record():
    crash = trouble("kill replica", 3, 4, "a")
    book = Book().batch(1, 2, 1).batch(2.5, None, 2, 3)
    again = book.batch(5, 6, 1, 2, 3, replica="b", process=2)
    assert not again.judge(crash).violations
    skipped = Book().batch(1, 2, 1).batch(2.5, None, 2, 3).batch(5, 6, 3, process=2)
    told = [violation.partition(" in ")[0] for violation in skipped.judge(crash).violations]
    assert told == ["lost: kinesis 0/2", "out of order: kinesis 0/3"]


def test_what_follows_poison_waits_until_that_is_given_up():
    book = Book().batch(1, 2, 1, bad=[1]).batch(3, 4, 2)
    assert not book.judge(poison=[1], given_up={1: 2.5}).violations
    [violation] = book.judge(poison=[1], given_up={1: 3.5}).violations
    assert violation.startswith("out of order: kinesis 0/2")


def test_a_repetition_is_explained_by_a_crash_of_its_replica_before_its_commit():
    book = Book().batch(1, 2, 1).batch(9, 10, 1, replica="b", process=2)
    verdict = book.judge(trouble("kill replica", 3, 4, "a"))
    assert not verdict.violations
    assert verdict.repeated == {"kill replica": 1}
    assert verdict.excusable == 1
    assert verdict.oldest_repeat_s == 1.0


def test_a_repetition_is_not_explained_by_what_came_late_or_hit_somebody_else():
    def judged(*troubles):
        book = Book().batch(1, 2, 1).batch(9, 10, 1, replica="b", process=2)
        return [violation.split(":")[0] for violation in book.judge(*troubles).violations]

    assert judged() == ["repeated"]
    assert judged(trouble("kill replica", 5, 6, "a")) == ["repeated"]
    assert judged(trouble("kill replica", 3, 4, "b")) == ["repeated"]
    assert judged(trouble("kill worker", 2, 2, "a", workers=(7,))) == ["repeated"]
    assert judged(trouble("cut from AWS", 2, 4, "a")) == ["repeated"]
    assert judged(trouble("restart replica", 2, 4, "a")) == ["repeated"]
    assert judged(trouble("delay Redis", 2, 4, "a")) == ["repeated"]
    assert judged(trouble("kill Redis", 9.5, 11)) == ["repeated"]


def test_what_was_seen_to_be_committed_never_runs_again():
    crash = trouble("kill replica", 3, 4, "a")
    book = Book().batch(1, 2, 1, 2).batch(9, 10, 2, replica="b", process=2)
    assert not book.judge(crash, commits={"s": [(3 * S, 10)]}).violations
    verdict = book.judge(crash, commits={"s": [(3 * S, 10), (4 * S, 25)]})
    [violation] = verdict.violations
    assert violation.startswith("repeated: kinesis 0/2 at s:20")
    assert verdict.committed == 2
    assert not book.judge(crash, commits={"s": [(3 * S, 10), (9 * S, 25)]}).violations
    assert not book.judge(crash, commits={"another": [(3 * S, 99)]}).violations


def test_while_nothing_can_be_committed_time_does_not_count():
    book = Book().batch(1, 2, 1).batch(30, 31, 1, replica="b", process=2)
    # Away from 3 to 8, tried again by 14 at the latest, and dead a second later.
    verdict = book.judge(trouble("kill Redis", 3, 8), trouble("kill replica", 15, 16, "a"))
    assert not verdict.violations
    assert book.judge(trouble("kill replica", 15, 16, "a")).violations


def test_a_worker_that_was_killed_explains_its_own_batches():
    book = Book().batch(1, 2, 1, process=7).batch(3, 4, 1, process=8)
    assert book.judge(trouble("kill worker", 2, 2.1, "a", workers=(7,))).repeated == {"kill worker": 1}


def test_poison_is_tried_as_often_as_allowed_and_once_more_for_each_trouble():
    book = Book()
    for at in range(6):
        book.batch(at, at + 0.5, 1, bad=[1])
    [violation] = book.judge(trouble("kill replica", 1, 2, "c"), poison=[1], given_up={1: 9}).violations
    assert violation == "poison kinesis 0/1 was tried 6 times, 1 troubles meanwhile"
    both = [trouble("kill replica", 1, 2, "c"), trouble("kill worker", 3, 3, "a", workers=(1,))]
    verdict = book.judge(*both, poison=[1], given_up={1: 9})
    assert not verdict.violations
    assert verdict.most_attempts == 6


def test_tries_of_a_queue_may_be_forgotten_with_redis_too():
    def judged(*troubles):
        book = Book("sqs")
        for at in range(5):
            book.batch(at, at + 0.5, 1, replica="ab"[at % 2], bad=[1])
        return book.judge(*troubles, poison=[1], given_up={1: 9}).violations

    assert judged() == ["poison sqs 0/1 was tried 5 times, 0 troubles meanwhile"]
    assert judged(trouble("restart replica", 1, 2, "a"))
    assert not judged(trouble("freeze Redis", 1, 2))
