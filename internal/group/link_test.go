package group

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/mirror/position"
	"github.com/leatstream/leat/internal/record"
)

// The links of these tests, and the id here of every topic but "other", which mirrors nothing.
var (
	linkA = [16]byte{1}
	linkB = [16]byte{2}
	hereT = [16]byte{7}
)

func mirrorsAll(topic string) ([16]byte, bool) { return hereT, topic != "other" }

// linkWorld asks a service as a link does.
type linkWorld struct {
	*testing.T

	sv   *Service
	logs []*memLog
}

// move has another coordinator lead all partitions.
func (w *linkWorld) move() {
	next := New(Config{Logger: slog.New(slog.DiscardHandler), Partitions: func() int32 { return testPartitions }})
	w.Cleanup(next.Close)
	for p, log := range w.logs {
		w.sv.StopLeading(int32(p))
		next.StartLeading(int32(p), 2, log)
	}
	awaitLoaded(next)
	w.sv = next
}

func withLink(t *testing.T, test func(w *linkWorld)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		sv, logs := newService(t)
		awaitLoaded(sv)
		test(&linkWorld{t, sv, logs})
	})
}

func (w *linkWorld) ask(q *position.Question) (a *position.Answer) {
	w.Helper()
	w.sv.ServeLink(q, mirrorsAll, func(got *position.Answer) { a = got })
	if synctest.Wait(); a == nil {
		w.Fatal("there is no answer")
	}
	return a
}

// change makes one change by a link.
func (w *linkWorld) change(link [16]byte, c position.Change) position.Outcome {
	w.Helper()
	return w.ask(&position.Question{Link: link, Changes: []position.Change{c}}).Outcomes[0]
}

// tell is what a link is told of a group.
func (w *linkWorld) tell(link [16]byte, group string) position.ToldGroup {
	w.Helper()
	a := w.ask(&position.Question{Link: link, Groups: []position.Text{position.Text(group)}})
	if len(a.Groups) != 1 || string(a.Groups[0].Name) != group || a.Groups[0].Problem != "" {
		w.Fatalf("%+v", a)
	}
	return a.Groups[0]
}

// commits is a change that commits an offset in partition 0 of a topic.
func commits(group, topic string, offset record.Offset, was *position.Stored) position.Change {
	return position.Change{Group: position.Text(group), Topic: topic, Offset: offset, Epoch: 4, Metadata: "m", Was: was}
}

// commitAs has a client commit.
func (w *linkWorld) commitAs(group, topic string, offset int64, id [16]byte) {
	w.Helper()
	req := commitRequest(group, "", -1, offset)
	req.Topics[0].Topic, req.Topics[0].TopicID = topic, id
	commitOne(w.sv, req, func(r *kmsg.OffsetCommitResponse) {
		if c := r.Topics[0].Partitions[0].ErrorCode; c != 0 {
			w.Fatal(c)
		}
	})
	synctest.Wait()
}

// TestLinkChanges proves that a link's commit is made, and later known as its own, if the position is as it was when the link looked, and that nothing of the group is changed otherwise: if a client or another link
// has committed meanwhile, also the same offset; for topics that do not mirror; and that a deletion is as one.
func TestLinkChanges(t *testing.T) {
	withLink(t, func(w *linkWorld) {
		if got := w.change(linkA, commits("g", "t", 10, nil)); got != position.Done {
			w.Fatal(got)
		}
		told := w.tell(linkA, "g")
		want := position.ToldPosition{Topic: "t", Epoch: 4, Metadata: "m", Stored: position.Stored{Offset: 10, Time: time.Now().UnixMilli(), IsOurs: true}}
		if len(told.Positions) != 1 || told.Positions[0] != want || told.IsActive || told.IsMore {
			w.Fatalf("%+v", told)
		}
		mine := told.Positions[0].Stored
		if other := w.tell(linkB, "g"); len(other.Positions) != 1 || other.Positions[0].IsOurs {
			w.Errorf("another link is told %+v", other)
		}
		time.Sleep(time.Second)
		for name, c := range map[string]position.Change{
			"it is there":        commits("g", "t", 11, nil),
			"of another offset":  commits("g", "t", 11, &position.Stored{Offset: 9, Time: mine.Time, IsOurs: true}),
			"of another time":    commits("g", "t", 11, &position.Stored{Offset: 10, Time: mine.Time + 1, IsOurs: true}),
			"of somebody else":   commits("g", "t", 11, &position.Stored{Offset: 10, Time: mine.Time}),
			"it is not there":    commits("h", "t", 11, &mine),
			"a deletion of that": {Group: "g", Topic: "t", Kind: position.Deletes, Was: &position.Stored{Offset: 9}},
		} {
			if got := w.change(linkA, c); got != position.WasChanged {
				w.Errorf("%s: %v", name, got)
			}
		}
		if got := w.change(linkB, commits("g", "t", 11, &mine)); got != position.WasChanged {
			w.Errorf("another link: %v", got)
		}
		if got := w.change(linkA, commits("g", "other", 11, nil)); got != position.NotHere {
			w.Errorf("a topic that does not mirror: %v", got)
		}
		if got := w.sv.fetchOne("g"); got != "ok t/0=10" {
			w.Error(got)
		}
		w.commitAs("g", "t", 10, hereT)
		if told := w.tell(linkA, "g"); told.Positions[0].IsOurs {
			w.Errorf("a client has committed since: %+v", told)
		}
		if got := w.change(linkA, commits("g", "t", 12, &mine)); got != position.WasChanged {
			w.Errorf("a client has committed the same: %v", got)
		}
		theirs := w.tell(linkA, "g").Positions[0].Stored
		if got := w.change(linkA, commits("g", "t", 13, &theirs)); got != position.Done {
			w.Error(got)
		}
		mine = w.tell(linkA, "g").Positions[0].Stored
		if got := w.change(linkA, position.Change{Group: "g", Topic: "t", Kind: position.Deletes, Was: &mine}); got != position.Done || len(w.tell(linkA, "g").Positions) != 0 {
			w.Error(got)
		}
	})
}

// TestLinkLeavesOthersAlone proves that a link changes nothing of a group that has members, or whose position an open transaction has, and that positions of a deleted topic of the name count as none.
func TestLinkLeavesOthersAlone(t *testing.T) {
	withLink(t, func(w *linkWorld) {
		c := &client{t: w.T, sv: w.sv, name: "c"}
		c.join(func(*kmsg.JoinGroupResponse) {})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if told := w.tell(linkA, "g"); !told.IsActive {
			w.Errorf("%+v", told)
		}
		if got := w.change(linkA, commits("g", "t", 10, nil)); got != position.WasActive {
			w.Error(got)
		}
		req := commitRequest("txn", "", -1, 5)
		req.Topics[0].Topic = "t"
		w.sv.CommitInTransaction(coord.Producer{ID: 3}, req, nil, func(*kmsg.OffsetCommitResponse) {})
		synctest.Wait()
		if got := w.change(linkA, commits("txn", "t", 10, nil)); got != position.WasActive {
			w.Error(got)
		}
		w.commitAs("old", "t", 5, [16]byte{99})
		if told := w.tell(linkA, "old"); len(told.Positions) != 0 {
			w.Errorf("%+v", told)
		}
		if got := w.change(linkA, commits("old", "t", 10, nil)); got != position.Done {
			w.Error(got)
		}
		w.commitAs("elsewhere", "other", 5, hereT)
		if told := w.tell(linkA, "elsewhere"); len(told.Positions) != 0 {
			w.Errorf("%+v", told)
		}
	})
}

// TestPositionsEndAtTheFork proves that a position which a link has made beyond the place where clients here began to write is given as that place, and one that it has made below it, or that a client has committed, as it is.
func TestPositionsEndAtTheFork(t *testing.T) {
	withLink(t, func(w *linkWorld) {
		next := New(Config{Logger: slog.New(slog.DiscardHandler), Partitions: func() int32 { return testPartitions }, Forks: func(topic string, partition int32) (record.Offset, bool) {
			return 50, topic == "t" && partition == 0
		}})
		w.Cleanup(next.Close)
		for _, topic := range []string{"t", "other"} {
			w.change(linkA, commits("beyond", topic, 70, nil))
			w.change(linkA, commits("below", topic, 30, nil))
			w.commitAs("client", topic, 70, hereT)
		}
		for p, log := range w.logs {
			w.sv.StopLeading(int32(p))
			next.StartLeading(int32(p), 2, log)
		}
		awaitLoaded(next)
		given := func(group string, topics []kmsg.OffsetFetchRequestGroupTopic) (got []string) {
			q := kmsg.NewOffsetFetchRequestGroup()
			q.Group, q.Topics = group, topics
			next.Fetch([]kmsg.OffsetFetchRequestGroup{q}, false, func(groups []kmsg.OffsetFetchResponseGroup) {
				for _, topic := range groups[0].Topics {
					for _, p := range topic.Partitions {
						got = append(got, fmt.Sprintf("%s %d %d %q", topic.Topic, p.Offset, p.LeaderEpoch, *p.Metadata))
					}
				}
			})
			synctest.Wait()
			return got
		}
		named := []kmsg.OffsetFetchRequestGroupTopic{{Topic: "t", Partitions: []int32{0}}}
		if got := given("beyond", named); !slices.Equal(got, []string{`t 50 -1 ""`}) {
			t.Errorf("beyond the fork: %q", got)
		}
		if got := given("beyond", nil); !slices.Contains(got, `t 50 -1 ""`) {
			t.Errorf("in the list of all: %q", got)
		}
		if got := given("below", named); !slices.Equal(got, []string{`t 30 4 "m"`}) {
			t.Errorf("below the fork: %q", got)
		}
		if got := given("client", named); len(got) != 1 || !strings.HasPrefix(got[0], "t 70 ") {
			t.Errorf("of a client: %q", got)
		}
	})
}

// TestLinkMarksSurvive proves that what a link has made is known as such by the next coordinator, by the log alone, and that it is listed, page by page, and nothing else is.
func TestLinkMarksSurvive(t *testing.T) {
	withLink(t, func(w *linkWorld) {
		long := strings.Repeat("n", 20_000)
		var changes []position.Change
		for i := range 40 {
			changes = append(changes, commits(fmt.Sprintf("%s%02d", long, i), "t", 5, nil))
		}
		for _, o := range w.ask(&position.Question{Link: linkA, Changes: changes}).Outcomes {
			if o != position.Done {
				w.Fatal(o)
			}
		}
		w.commitAs("client", "t", 1, hereT)
		if got := w.change(linkB, commits("b", "t", 5, nil)); got != position.Done {
			w.Fatal(got)
		}
		w.move()
		var listed []string
		q := &position.Question{Link: linkA, Lists: true}
		for pages := 1; ; pages++ {
			a := w.ask(q)
			for _, name := range a.Listed {
				listed = append(listed, string(name))
			}
			if !a.IsMore {
				if pages < 3 || a.Problem != "" {
					w.Errorf("%d pages, %q", pages, a.Problem)
				}
				break
			}
			q.AfterGroup = a.Listed[len(a.Listed)-1]
		}
		if len(listed) != 40 || !slices.IsSorted(listed) || listed[39] != long+"39" {
			w.Errorf("%d groups are listed", len(listed))
		}
		if told := w.tell(linkA, long+"07"); !told.Positions[0].IsOurs {
			w.Errorf("%+v", told.Positions)
		}
		if told := w.tell(linkA, "client"); told.Positions[0].IsOurs {
			w.Errorf("%+v", told.Positions)
		}
	})
}

// TestLinkAnswersAreBounded proves that no answer is larger than a message, however many groups and positions there are, and that all of them are told of, a part at a time.
func TestLinkAnswersAreBounded(t *testing.T) {
	withLink(t, func(w *linkWorld) {
		topic := strings.Repeat("t", 200)
		for at := int32(0); at < 3000; at += position.MaxChanges {
			q := &position.Question{Link: linkA}
			for p := at; p < at+position.MaxChanges; p++ {
				c := commits("wide", topic, 5, nil)
				c.Partition = p
				q.Changes = append(q.Changes, c)
			}
			w.ask(q)
		}
		q := &position.Question{Link: linkA, Groups: []position.Text{"wide", "wide", "none"}}
		a := w.ask(q)
		if len(a.Groups) != 1 || !a.Groups[0].IsMore {
			w.Fatalf("%d groups", len(a.Groups))
		}
		next := int32(0)
		for pages := 1; ; pages++ {
			size := 0
			for _, p := range a.Groups[0].Positions {
				if size += p.Size(); p.Partition != next {
					w.Fatalf("partition %d, and not %d", p.Partition, next)
				}
				next++
			}
			if size > position.MaxMessage {
				w.Errorf("an answer of %d bytes", size)
			}
			if !a.Groups[0].IsMore {
				if pages < 3 || next != 3000 {
					w.Errorf("%d pages, %d positions", pages, next)
				}
				break
			}
			last := a.Groups[0].Positions[len(a.Groups[0].Positions)-1]
			a = w.ask(&position.Question{Link: linkA, Groups: []position.Text{"wide"}, AfterTopic: last.Topic, AfterPartition: last.Partition})
		}
	})
}

// TestLinkPositionsExpire proves that what a link has made expires when the retention has passed since the link has last said that the source has it, or since the log was loaded, and that an ordinary
// position expires as ever; before that the link is told that the position is aging.
func TestLinkPositionsExpire(t *testing.T) {
	withLink(t, func(w *linkWorld) {
		const day = 24 * time.Hour // the retention is seven
		w.change(linkA, commits("kept", "t", 10, nil))
		w.change(linkA, commits("lost", "t", 10, nil))
		w.commitAs("client", "t", 10, hereT)
		mine := w.tell(linkA, "kept").Positions[0]
		if mine.IsAging {
			w.Error("it is aging at once")
		}
		time.Sleep(4 * day)
		if told := w.tell(linkA, "kept").Positions[0]; !told.IsAging {
			w.Error("after four days it is not aging")
		}
		if told := w.tell(linkA, "client").Positions[0]; told.IsAging {
			w.Error("a client's position is aging, of which the link knows nothing")
		}
		if got := w.change(linkA, position.Change{Group: "kept", Topic: "t", Kind: position.Confirms, Was: &mine.Stored}); got != position.Done {
			w.Error(got)
		}
		if told := w.tell(linkA, "kept").Positions[0]; told.IsAging || told.Stored != mine.Stored {
			w.Errorf("%+v", told)
		}
		time.Sleep(4 * day)
		synctest.Wait()
		if got := w.sv.fetchOne("kept") + w.sv.fetchOne("lost") + w.sv.fetchOne("client"); got != "ok t/0=10okok" {
			w.Error(got)
		}
		w.move()
		time.Sleep(6 * day)
		synctest.Wait()
		if got := w.sv.fetchOne("kept"); got != "ok t/0=10" {
			w.Errorf("six days after the load: %s", got)
		}
		time.Sleep(2 * day)
		synctest.Wait()
		if got := w.sv.fetchOne("kept"); got != "ok" {
			w.Errorf("eight days after the load: %s", got)
		}
	})
}

// TestLinkIsToldOfProblems proves that a link is told, and nothing is taken for missing, where a node does not coordinate the groups, has no memory, or has lost its contact with the cluster.
func TestLinkIsToldOfProblems(t *testing.T) {
	withLink(t, func(w *linkWorld) {
		for p := range w.logs {
			w.sv.StopLeading(int32(p))
		}
		a := w.ask(&position.Question{Link: linkA, Groups: []position.Text{"g"}, Changes: []position.Change{commits("g", "t", 1, nil)}})
		if len(a.Groups) != 1 || a.Groups[0].Problem == "" || a.Outcomes[0] != position.Failed || a.Problem == "" {
			w.Errorf("%+v", a)
		}
		full := New(Config{Logger: slog.New(slog.DiscardHandler), Partitions: func() int32 { return 1 }, Memory: 1000})
		w.Cleanup(full.Close)
		full.StartLeading(0, 1, &memLog{})
		awaitLoadedOf(full, 1)
		w.sv = full
		c := commits("g", "t", 1, nil)
		c.Metadata = position.Text(strings.Repeat("m", 2000))
		if got := w.change(linkA, c); got != position.Failed {
			w.Error(got)
		}
		cutOff := New(Config{Logger: slog.New(slog.DiscardHandler), Partitions: func() int32 { return 1 }, HasSession: func() bool { return false }})
		w.Cleanup(cutOff.Close)
		cutOff.StartLeading(0, 1, &memLog{})
		awaitLoadedOf(cutOff, 1)
		w.sv = cutOff
		a = w.ask(&position.Question{Link: linkA, Lists: true, Groups: []position.Text{"g"}, Changes: []position.Change{commits("g", "t", 1, nil)}})
		if a.Groups[0].Problem == "" || a.Outcomes[0] != position.Failed || a.Problem == "" || len(a.Listed) != 0 {
			w.Errorf("%+v", a)
		}
	})
}
