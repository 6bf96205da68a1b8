package node

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/meta"
)

// TestNotesAreBounded proves that clients cannot make a node note more than its bounds, and that it says how much it has left out.
func TestNotesAreBounded(t *testing.T) {
	var p plainClients
	for i := range mostPlainClients + 10 {
		p.note(fmt.Sprint("client-", i), "10.0.0.1")
	}
	p.note(strings.Repeat("x", 10*mostNoted), "10.0.0.1")
	list, forgotten := p.list(func(func(string, string)) {})
	if len(list) != mostPlainClients || forgotten != 11 || len(list[0].ClientID) != mostNoted || !list[0].Last.After(list[len(list)-1].Last) {
		t.Errorf("%d clients, %d forgotten, the last is %.40q", len(list), forgotten, list[0].ClientID)
	}
	var d wouldDeny
	for i := range mostWouldDeny + 10 {
		for range 2 {
			d.note("User:a", meta.Read, meta.TopicResource, fmt.Sprint("topic-", i))
		}
	}
	d.note("User:a", meta.Read, meta.GroupResource, strings.Repeat("g", mostNoted+1))
	denied, uncounted := d.list()
	if len(denied) != mostWouldDeny || uncounted != 21 || denied[0].Count != 2 || d.countAll() != 2*(mostWouldDeny+10)+1 {
		t.Errorf("%d things, %d uncounted, %+v", len(denied), uncounted, denied[0])
	}
}

// TestDeniedFitsAnAnswer proves that what nodes have noted is added up, and that an answer has room for it whatever names clients choose.
func TestDeniedFitsAnAnswer(t *testing.T) {
	early, late := time.Unix(100, 0), time.Unix(200, 0)
	one := cluster.WouldDeny{Principal: "User:a", Operation: "READ", ResourceType: "TOPIC", Resource: "t", Count: 2, Last: late}
	two, other := one, one
	two.Count, two.Last, other.Operation = 3, early, "WRITE"
	list, left := fitDenied([]cluster.WouldDeny{one, other, two}, 7)
	if len(list) != 2 || list[0].Count != 5 || !list[0].Last.Equal(late) || left != 7 {
		t.Errorf("%+v, %d", list, left)
	}
	var many []cluster.WouldDeny
	for i := range 3 * mostWouldDeny {
		w := one
		w.Resource = fmt.Sprint(i, strings.Repeat("\x01<", 100))
		many = append(many, w)
	}
	list, left = fitDenied(many, 0)
	size := 0
	for _, w := range list {
		size += len(fmt.Sprintf("%q", w.Resource))
	}
	if len(list) == 0 || left != int64(2*(len(many)-len(list))) || size > mostShownDenied {
		t.Errorf("%d things of %d bytes at least, and %d more", len(list), size, left)
	}
}
