package quorum

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

func sampleMessages() []*pb.Message {
	conf := &pb.ConfState{Voters: []uint64{1, 2, 3}, Learners: []uint64{4}, AutoLeave: new(false)}
	entry := func(term, index uint64, data string) *pb.Entry {
		e := &pb.Entry{Term: &term, Index: &index, Type: pb.EntryNormal.Enum()}
		if data != "" {
			e.Data = []byte(data)
		}
		return e
	}
	full := func(m *pb.Message) *pb.Message {
		base := &pb.Message{
			To: new(uint64(1)), From: new(uint64(2)), Term: new(uint64(9)), LogTerm: new(uint64(0)), Index: new(uint64(0)),
			Commit: new(uint64(0)), RejectHint: new(uint64(0)), Reject: new(false),
		}
		proto.Merge(base, m)
		return base
	}
	return []*pb.Message{
		full(&pb.Message{
			Type: pb.MsgApp.Enum(), LogTerm: new(uint64(7)), Index: new(uint64(40)), Commit: new(uint64(39)),
			Entries: []*pb.Entry{entry(7, 41, "a proposal"), entry(9, 42, "")},
		}),
		full(&pb.Message{Type: pb.MsgAppResp.Enum(), Index: new(uint64(40)), Reject: new(true), RejectHint: new(uint64(38)), LogTerm: new(uint64(6))}),
		full(&pb.Message{Type: pb.MsgVote.Enum(), Index: new(uint64(40)), LogTerm: new(uint64(7)), Context: []byte("CampaignTransfer")}),
		full(&pb.Message{Type: pb.MsgHeartbeat.Enum(), Commit: new(uint64(40))}),
		full(&pb.Message{Type: pb.MsgSnap.Enum(), Snapshot: snapshotMark{position{30, 6}, conf}.raftSnapshot()}),
	}
}

// TestMessagesTravel proves that messages are decoded as they were encoded, that a message of which a
// byte is missing at any place is refused or harmless, and that trailing bytes are refused.
func TestMessagesTravel(t *testing.T) {
	for _, m := range sampleMessages() {
		b := encodeMessage("cluster", m)
		got, err := decodeMessage("cluster", b)
		if err != nil || !proto.Equal(got, m) {
			t.Errorf("%v becomes %v: %v", m, got, err)
		}
		if from, err := SenderOf(b); err != nil || from != m.GetFrom() {
			t.Errorf("%v is from %x: %v", m, from, err)
		}
		for i := range b {
			if got, err := decodeMessage("cluster", b[:i]); err == nil && len(got.GetEntries()) >= len(m.GetEntries()) {
				t.Errorf("%v cut at %d is read", m.GetType(), i)
			}
			if from, err := SenderOf(b[:i]); err != nil && !errors.Is(err, ErrMessage) || err == nil && from != m.GetFrom() {
				t.Errorf("%v cut at %d is from %x: %v", m.GetType(), i, from, err)
			}
		}
		if _, err := decodeMessage("cluster", append(b, 0)); !errors.Is(err, ErrMessage) {
			t.Errorf("%v with a byte more: %v", m.GetType(), err)
		}
	}
}

// TestWrongMessages proves that messages on which raft could panic, or that no member sends, are refused.
func TestWrongMessages(t *testing.T) {
	for _, c := range []struct {
		name   string
		sample int
		change func(m *pb.Message)
	}{
		{"no sender", 0, func(m *pb.Message) { m.From = new(uint64(0)) }},
		{"a local sender", 0, func(m *pb.Message) { m.From = new(^uint64(0)) }},
		{"no term", 0, func(m *pb.Message) { m.Term = new(uint64(0)) }},
		{"the last term", 0, func(m *pb.Message) { m.Term = new(^uint64(0)) }},
		{"a gap in the entries", 0, func(m *pb.Message) { m.Entries[1].Index = new(uint64(43)) }},
		{"entries at another place", 0, func(m *pb.Message) { m.Index = new(uint64(20)) }},
		{"terms that fall", 0, func(m *pb.Message) { m.Entries[1].Term = new(uint64(6)) }},
		{"entries of a later term", 0, func(m *pb.Message) { m.Term = new(uint64(8)) }},
		{"the end of all indexes", 0, func(m *pb.Message) { m.Index = new(^uint64(0)); m.Entries = nil }},
		{"entries in a heartbeat", 3, func(m *pb.Message) { m.Entries = []*pb.Entry{{Data: []byte("x")}} }},
		{"a snapshot without a snapshot", 4, func(m *pb.Message) { m.Snapshot = nil }},
		{"a snapshot of nothing", 4, func(m *pb.Message) { m.Snapshot.Metadata.Index = new(uint64(0)) }},
		{"a snapshot of a later term", 4, func(m *pb.Message) { m.Snapshot.Metadata.Term = new(uint64(10)) }},
		{"impossible members", 4, func(m *pb.Message) { m.Snapshot.Metadata.ConfState.Learners = []uint64{1} }},
		{"a local type", 3, func(m *pb.Message) { m.Type = pb.MsgCheckQuorum.Enum() }},
		{"a proposal", 3, func(m *pb.Message) { m.Type = pb.MsgProp.Enum() }},
		{"an unknown type", 3, func(m *pb.Message) { m.Type = pb.MessageType(77).Enum() }},
		{"a long context", 2, func(m *pb.Message) { m.Context = []byte(strings.Repeat("x", maxContext+1)) }},
	} {
		m := sampleMessages()[c.sample]
		c.change(m)
		if got, err := decodeMessage("cluster", encodeMessage("cluster", m)); !errors.Is(err, ErrMessage) {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
	b := encodeMessage("cluster", sampleMessages()[3])
	for range maxMessageEntries + 1 {
		b = appendEntry(b, &pb.Entry{})
	}
	if _, err := decodeMessage("cluster", b); !errors.Is(err, ErrMessage) {
		t.Errorf("too many entries: %v", err)
	}
	if _, err := decodeMessage("other", encodeMessage("cluster", sampleMessages()[3])); !errors.Is(err, errForeign) {
		t.Errorf("another cluster: %v", err)
	}
}

// TestWrongAnswers proves that answers to pulls that no member gives are refused.
func TestWrongAnswers(t *testing.T) {
	good := func() *pulled {
		return &pulled{
			member: 1, leader: 2, term: 9, commit: 42, conf: &pb.ConfState{Voters: []uint64{1}, AutoLeave: new(false)}, prev: position{40, 7},
			entries: []*pb.Entry{{Index: new(uint64(41)), Term: new(uint64(7)), Type: pb.EntryNormal.Enum(), Data: []byte("x")}},
		}
	}
	if p, err := decodePulled("c", encodePulled("c", good())); err != nil || p.prev != good().prev || len(p.entries) != 1 || p.commit != 42 {
		t.Errorf("%+v, %v", p, err)
	}
	for name, change := range map[string]func(p *pulled){
		"a gap":                 func(p *pulled) { p.prev.index = 39 },
		"a term that falls":     func(p *pulled) { p.prev.term = 8 },
		"not committed entries": func(p *pulled) { p.commit = 40 },
		"impossible members":    func(p *pulled) { p.conf.Learners = []uint64{1} },
	} {
		p := good()
		change(p)
		if _, err := decodePulled("c", encodePulled("c", p)); !errors.Is(err, ErrMessage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := decodePart("c", encodePart("c", maxSnapshotBytes+1, nil)); !errors.Is(err, ErrMessage) {
		t.Errorf("a huge snapshot: %v", err)
	}
}

// FuzzMessages proves that no bytes make the decoders panic, and that an accepted message is encoded
// with the same meaning.
func FuzzMessages(f *testing.F) {
	for _, m := range sampleMessages() {
		f.Add(encodeMessage("c", m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decodeMessage("c", b); err == nil {
			again, err := decodeMessage("c", encodeMessage("c", m))
			if err != nil || !proto.Equal(m, again) {
				t.Fatalf("%v becomes %v: %v", m, again, err)
			}
		}
		if p, err := decodePulled("c", b); err == nil && !bytes.Equal(encodePulled("c", p), b) {
			t.Fatal("an answer changes")
		}
		_, _, _ = decodePart("c", b)
	})
}
