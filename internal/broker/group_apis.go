package broker

import (
	"slices"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// groupAPIs are the APIs of consumer groups and their offsets.
func groupAPIs(b *Broker) []api {
	if b.cfg.Groups == nil {
		return nil
	}
	return []api{
		{key: 8, name: "OffsetCommit", min: 2, max: 10, raw: (*session).offsetCommit},
		{key: 9, name: "OffsetFetch", min: 1, max: 10, serve: b.offsetFetch},
		{key: 10, name: "FindCoordinator", min: 0, max: 6, serve: b.findCoordinator},
		{key: 11, name: "JoinGroup", min: 0, max: 9, serve: b.joinGroup},
		{key: 12, name: "Heartbeat", min: 0, max: 4, serve: b.heartbeat},
		{key: 13, name: "LeaveGroup", min: 0, max: 5, serve: b.leaveGroup},
		{key: 14, name: "SyncGroup", min: 0, max: 5, serve: b.syncGroup},
		{key: 15, name: "DescribeGroups", min: 0, max: 6, serve: b.describeGroups},
		{key: 16, name: "ListGroups", min: 0, max: 5, serve: b.listGroups},
		{key: 28, name: "TxnOffsetCommit", min: 0, max: 6, serve: b.txnOffsetCommit},
		{key: 42, name: "DeleteGroups", min: 0, max: 3, serve: b.deleteGroups},
		{key: 47, name: "OffsetDelete", min: 0, max: 0, serve: b.offsetDelete},
		{key: 69, name: "ConsumerGroupDescribe", min: 0, max: 1, serve: b.consumerGroupDescribe},
		{key: 77, name: "ShareGroupDescribe", min: 1, max: 1, serve: b.shareGroupDescribe},
		{key: 89, name: "StreamsGroupDescribe", min: 0, max: 1, serve: b.streamsGroupDescribe},
	}
}

// splitGroups parts groups into those that the client may use, and the others.
func (a *access) splitGroups(op meta.Operation, names []string) (allowed, denied []string) {
	if a.by == nil && !a.watch.isNoting() {
		return names, nil
	}
	allowed = []string{} // not nil, which may stand for all
	for _, name := range names {
		if a.mayGroup(op, name) {
			allowed = append(allowed, name)
		} else {
			denied = append(denied, name)
		}
	}
	return allowed, denied
}

// containPanics returns a reply that closes the request's connection if it panics. The panic
// would otherwise end the goroutine that calls it, which may serve other connections.
func containPanics[R any](r *wire.Request, reply func(R)) func(R) {
	return func(answer R) {
		defer r.Conn.Contain()
		reply(answer)
	}
}

// dropRepeated drops the names that are in the list before.
func dropRepeated(names []string) []string {
	seen := make(map[string]struct{}, len(names))
	return slices.DeleteFunc(names, func(name string) bool {
		_, again := seen[name]
		seen[name] = struct{}{}
		return again
	})
}
