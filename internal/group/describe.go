package group

import (
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
)

// dead is the state that DescribeGroups reports for a group that does not exist.
const dead = "Dead"

// Describe answers DescribeGroups for one group. A group that does not exist is an
// error from version 6 on; before, it is reported as dead.
func (m *Machine) Describe(s *coord.Step, id string, version int16) kmsg.DescribeGroupsResponseGroup {
	resp := kmsg.NewDescribeGroupsResponseGroup()
	resp.Group = id
	g := m.findGroup(s, id)
	if g == nil {
		resp.State = dead
		if version >= 6 {
			text := "Group " + id + " not found."
			resp.ErrorCode, resp.ErrorMessage = groupIDNotFound, &text
		}
		return resp
	}
	g.classic.Describe(&resp)
	return resp
}

// classicType is the type of all groups so far.
const classicType = "classic"

// List answers ListGroups: the groups that are in one of the states and of one of the
// types. An empty list means any.
func (m *Machine) List(s *coord.Step, states, types []string) []kmsg.ListGroupsResponseGroup {
	s.After(m.last)
	if len(types) > 0 && !slices.ContainsFunc(types, func(t string) bool { return strings.EqualFold(t, classicType) }) {
		return nil
	}
	var groups []kmsg.ListGroupsResponseGroup
	for _, g := range m.groups {
		name := g.classic.State()
		if len(states) > 0 && !slices.ContainsFunc(states, func(f string) bool {
			return strings.EqualFold(strings.TrimSpace(f), name)
		}) {
			continue
		}
		groups = append(groups, kmsg.ListGroupsResponseGroup{
			Group: g.id, ProtocolType: g.classic.ProtocolType(), GroupState: name, GroupType: classicType,
		})
	}
	return groups
}
