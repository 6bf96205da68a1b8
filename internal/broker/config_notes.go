package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
)

// addNote adds to the answer to a change of configs that succeeded a note about those that were
// set and have no effect, if there are any.
func addNote(tags *kmsg.Tags, t config.ResourceType, set map[string]string) {
	if note := config.Note(t, set); note != "" {
		tags.Set(config.NoteTag, []byte(note))
	}
}

// valuesSet are the values that changes set, or add to lists.
func valuesSet(changes []controller.ConfigChange) map[string]string {
	set := make(map[string]string, len(changes))
	for i := range changes {
		if c := &changes[i]; c.Op == controller.Set || c.Op == controller.Append {
			set[c.Key] = c.Value
		}
	}
	return set
}

// configsGiven are the values of a new topic's configs that are not null.
func configsGiven(configs map[string]*string) map[string]string {
	set := make(map[string]string, len(configs))
	for key, value := range configs {
		if value != nil {
			set[key] = *value
		}
	}
	return set
}
