package mirror

import (
	"time"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/progress"
)

// LinkMetrics is how a link does on this node: its partitions are those that the node leads.
type LinkMetrics struct {
	Link   string
	States [progress.Promoted + 1]int // how many partitions are in each state

	// The lag is that of the partitions of which it is known, Unknown counts the others.
	LagRecords, LagBytes int64
	Behind, RPO          time.Duration // the longest ones
	Unknown              int

	Bytes, Records                           int64 // that were appended since the node knows of the link, as the following
	Connections, Unconnected, FailedRequests int64
	Cuts, PutBack, AccessChanges             int64
	IsUnusable                               bool         // the settings or the secret cannot be used
	Problems                                 int64        // that the last check on this node has found; -1: there was none
	Tasks                                    []TaskStatus // those that this node runs
}

// Metrics tells how all links do on this node, in the order of their names.
func (s *Service) Metrics() (all []LinkMetrics) {
	isController := s.cfg.IsController()
	for _, conf := range s.cfg.Image().Links().All() {
		s.mu.Lock()
		l := s.links[conf.ID]
		s.mu.Unlock()
		if l == nil {
			continue
		}
		all = append(all, s.metricsOf(conf, l, isController))
	}
	return all
}

func (s *Service) metricsOf(conf *meta.Link, l *link, isController bool) LinkMetrics {
	c := &l.counts
	m := LinkMetrics{
		Link: conf.Name, Bytes: c.bytes.Load(), Records: c.records.Load(), Connections: c.connections.Load(), Unconnected: c.unconnected.Load(), FailedRequests: c.failedRequests.Load(),
		Cuts: c.cuts.Load(), PutBack: c.putBack.Load(), AccessChanges: c.accessChanges.Load(), Problems: c.checkedProblems.Load() - 1,
	}
	if err := l.problem.Load(); err != nil && *err != nil {
		m.IsUnusable = true
	}
	for _, p := range s.Status(conf.ID) {
		m.States[p.State]++
		if !p.Lag.IsKnown || p.Status.Source.HighWatermark < 0 {
			m.Unknown++
		}
		m.LagRecords, m.LagBytes = m.LagRecords+p.Lag.Records, m.LagBytes+p.Lag.Bytes
		m.Behind, m.RPO = max(m.Behind, p.Lag.Behind), max(m.RPO, p.Lag.RPO)
	}
	if isController {
		m.Tasks = l.tasks.list()
	}
	return m
}

// noteCheck notes how many problems a check of a link as it is has found.
func (s *Service) noteCheck(conf *meta.Link, r *Report) {
	s.mu.Lock()
	l := s.links[conf.ID]
	s.mu.Unlock()
	if l != nil && conf.Equal(l.newest.Load()) {
		l.counts.checkedProblems.Store(int64(len(r.Problems)) + 1)
	}
}
