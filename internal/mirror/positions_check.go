package mirror

import (
	"context"

	"github.com/leatstream/leat/internal/mirror/source"
)

// checkPositions finds out how the positions of consumer groups can be followed.
func (c *check) checkPositions(ctx context.Context) {
	if c.set.Groups == nil {
		c.r.step("positions of consumer groups do not follow the source, as %s says", keyPositions)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	isThere := false
	for i := range c.cluster.Topics {
		isThere = isThere || c.cluster.Topics[i].Name == offsetsTopic && c.cluster.Topics[i].Err == nil
	}
	failed := c.tryReading(ctx, []string{offsetsTopic})[offsetsTopic]
	if isThere && failed == nil {
		c.r.step("the records of the source's consumer groups may be read: their positions are here within a second")
		return
	}
	groups, err := c.client.ListGroups(ctx)
	switch {
	case err != nil:
		c.r.Warnings = append(c.r.Warnings, Finding{
			"groups", "The positions of consumer groups cannot be followed: " + sentence(err), "Grant the login READ of the topic " + offsetsTopic + " at the source, or DESCRIBE of the groups.",
		})
	case source.IsDenied(failed):
		c.r.step("positions of consumer groups are polled every 5 s, since the login lacks READ of %s: %s may be seen", offsetsTopic, countOf(len(groups), "group"))
	default:
		c.r.step("positions of consumer groups are polled every 5 s, as long as the source shows no %s: %s may be seen", offsetsTopic, countOf(len(groups), "group"))
	}
}
