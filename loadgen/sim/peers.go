package sim

import (
	"strconv"
	"time"

	"github.com/warmpath/warmpath/services/router/ledger"
)

// How routers share their ledgers, as the service has it: changes are gathered for 5 ms, and all is told each second.
const (
	gather     = 5 * time.Millisecond
	tellEvery  = time.Second
	maxRouters = 64
)

// news is what a router tells its peers.
type news struct {
	from int
	ledger.News
}

// sharing says whether routers hear one another.
func (f *world) sharing() bool { return len(f.routers) > 1 && f.o.Peers >= 0 }

// connect lets routers tell what changes.
func (f *world) connect() {
	if !f.sharing() {
		return
	}
	for i, r := range f.routers {
		r.pool.OnChange(func() { f.clock.at(f.clock.now+gather, action{kind: tell, engine: i}) })
	}
}

// which router gets the request that is sent now.
func (f *world) which() int {
	return int(mix64(f.o.Seed^mix64(f.client.sent)) % uint64(len(f.routers)))
}

// tellPeers lets every router tell all that it has, now and each second until the end.
func (f *world) tellPeers() {
	if !f.sharing() || f.client.over() {
		return
	}
	for i := range f.routers {
		f.tell(i, true)
	}
	f.clock.at(f.clock.now+tellEvery, action{kind: tellAll})
}

func (f *world) tell(router int, whole bool) {
	r := f.routers[router]
	entries := r.pool.Tell(nil, whole, r.time(f.clock.now))
	if len(entries) == 0 && !whole {
		return
	}
	r.seq++
	n := &news{router, ledger.News{Router: strconv.Itoa(router), Life: 1, Seq: r.seq, Whole: whole, Entries: entries}}
	f.clock.at(f.clock.now+f.o.Peers, action{kind: heard, news: n})
}

func (f *world) heard(n *news) {
	for i, r := range f.routers {
		if i == n.from {
			continue
		}
		if err := r.pool.Hear(r.view, &n.News, r.time(f.clock.now)); err != nil {
			panic("simulate: " + err.Error())
		}
	}
}
