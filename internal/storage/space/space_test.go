package space

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leatstream/leat/internal/vfs"
)

// TestSpace proves that appends are refused when only the reserve is left, and not before, that
// they are accepted again when there is room, and that each of the two is logged once.
func TestSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const reserve = 100 << 20
		mem := vfs.NewMem()
		if err := mem.MkdirAll("data"); err != nil {
			t.Fatal(err)
		}
		mem.SetFree(reserve + 10<<20)
		var text bytes.Buffer
		s := New(mem, "data", reserve, slog.New(slog.NewTextHandler(&text, nil)))
		for range 10 {
			if err := s.Take(1 << 20); err != nil {
				t.Fatal(err)
			}
		}
		mem.SetFree(reserve)
		for range 5 {
			time.Sleep(time.Second)
			if err := s.Take(1); !errors.Is(err, ErrFull) {
				t.Errorf("the reserve is given away: %v", err)
			}
		}
		if !s.IsFull() || s.HasRoomFor(1) {
			t.Error("it does not know that it is full")
		}
		mem.SetFree(2*reserve + 50<<20)
		time.Sleep(time.Second)
		if err := s.Take(1); err != nil || s.IsFull() || !s.HasRoomFor(1<<20) {
			t.Errorf("with room: %v", err)
		}
		for range 5 { // refused though bytes are free, as by a quota
			s.NoteRefusal()
		}
		if full, room := strings.Count(text.String(), "the disk is full"), strings.Count(text.String(), "on the disk again"); full != 1 || room != 1 {
			t.Errorf("told %d times that it is full and %d times that there is room:\n%s", full, room, text.String())
		}
	})
}
