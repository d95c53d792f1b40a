package top

import (
	"testing"

	tea "charm.land/bubbletea/v2"

	"github.com/warmpath/warmpath/libs/fleet"
)

func TestKeys(t *testing.T) {
	w := newWorld()
	for _, id := range []string{"b", "c"} {
		w.view.Pools[id] = fleet.Pool{ID: id, Model: "Z/" + id}
	}
	w.tick(1, "")
	p := w.model.Picture()
	s := &screen{wanted: "Z/b"}
	s.Update(tea.WindowSizeMsg{Width: 80, Height: 24})
	if s.View().Content != "" || !s.View().AltScreen {
		t.Error("something is drawn before there is a picture")
	}
	s.Update(&p)
	press := func(keys ...tea.Key) (quits bool) {
		for _, k := range keys {
			_, cmd := s.Update(tea.KeyPressMsg(k))
			if cmd != nil {
				_, quits = cmd().(tea.QuitMsg)
			}
		}
		return quits
	}
	shown := func(pool string, order Order, help bool) {
		t.Helper()
		if want := (Show{Pool: pool, Order: order, Help: help}); s.show != want {
			t.Errorf("shows %+v, want %+v", s.show, want)
		}
	}
	shown("b", ByName, false)
	press(tea.Key{Code: tea.KeyTab})
	shown("c", ByName, false)
	press(tea.Key{Code: tea.KeyRight})
	shown("p", ByName, false)
	press(tea.Key{Code: tea.KeyLeft}, tea.Key{Code: tea.KeyUp})
	shown("b", ByName, false)
	press(tea.Key{Code: 's', Text: "s"})
	shown("b", ByLoad, false)
	press(tea.Key{Code: 's', Text: "s"}, tea.Key{Code: 's', Text: "s"}, tea.Key{Code: '?', Text: "?"})
	shown("b", ByName, true)
	press(tea.Key{Code: tea.KeyEscape})
	shown("b", ByName, false)
	s.Update(&p) // what was chosen stays
	shown("b", ByName, false)
	if press(tea.Key{Code: 'x', Text: "x"}) {
		t.Error("x quits")
	}
	if !press(tea.Key{Code: 'q', Text: "q"}) || !press(tea.Key{Code: 'c', Mod: tea.ModCtrl}) {
		t.Error("q or ctrl-c does not quit")
	}
	if s.View().Content != Frame(&p, s.show, 80, 24) {
		t.Error("the screen is not the frame")
	}
}

// A pool that goes away leaves the first one shown; keys go on from there.
func TestTheChosenPoolGoesAway(t *testing.T) {
	s := &screen{show: Show{Pool: "gone"}}
	s.step(1) // no picture
	p := Picture{Pools: []Pool{{ID: "a"}, {ID: "b"}}}
	s.Update(&p)
	s.step(1)
	if s.show.Pool != "b" {
		t.Errorf("shows %q", s.show.Pool)
	}
	s.Update(&Picture{})
	s.step(-1)
}
