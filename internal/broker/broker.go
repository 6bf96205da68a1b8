// Package broker answers Kafka's APIs, one file per API: authorise, find, call,
// translate errors into codes. Nothing below it knows an error code, but for the
// coordinators' results.
package broker

import (
	"log/slog"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/storage"
	"github.com/leatstream/leat/internal/wire"
)

// Config hands the broker what it needs.
type Config struct {
	NodeID int32
	Logger *slog.Logger
	Image  func() *meta.Image // the newest image; never nil
	Store  *storage.Store
}

// Broker is a wire.Handler.
type Broker struct {
	cfg  Config
	apis [256]*api // by key
}

// api is one row of the table of APIs; ApiVersions is read off it.
type api struct {
	key      int16
	name     string
	min, max int16 // versions served
	// Exactly one of the two is set. raw decodes the body itself and runs before
	// the appends collected so far are flushed (Produce, Fetch). serve gets the
	// decoded request after a Flush and an Uncork; it may block, and it must see to
	// it that r is answered, now or later.
	raw   func(s *session, r *wire.Request) error
	serve func(s *session, r *wire.Request, req kmsg.Request) error
}

// session is one connection's state.
type session struct {
	b    *Broker
	conn *wire.Conn
}
