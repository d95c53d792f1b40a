package plane

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/warmpath/warmpath/libs/bus"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

// stored is what lies in a stretch of the event log, in bytes.
type stored struct {
	messages  int
	data      int // of the messages
	deltas    int // of the parts that are deltas, and of the messages around them
	snapshots int // of the parts of snapshots
	digests   int
	carriers  int // messages with a delta in them
}

// readStored reads the messages after one sequence up to another.
func readStored(ctx context.Context, conn *bus.Conn, after, last uint64) (s stored, err error) {
	if last <= after {
		return s, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	done := false
	err = conn.Follow(ctx, bus.Events, nil, after+1, func(m bus.Message) {
		if done {
			return
		}
		if m.Seq <= last && err == nil {
			err = s.add(m.Data)
		}
		if done = m.Seq >= last || m.Pending == 0; done {
			cancel()
		}
	})
	if !done && err == nil {
		err = context.Cause(ctx)
	}
	return s, err
}

func (s *stored) add(data []byte) error {
	var m eventsv1.Message
	if err := proto.Unmarshal(data, &m); err != nil {
		return err
	}
	s.messages++
	s.data += len(data)
	other, carries := 0, false
	for _, p := range m.Parts {
		size := proto.Size(p)
		switch {
		case p.GetDelta() != nil:
			carries = true
			continue
		case p.GetSnapshot() != nil:
			s.snapshots += size
		case p.GetDigest() != nil:
			s.digests += size
		}
		other += size
	}
	if carries {
		s.carriers++
		s.deltas += len(data) - other
	}
	return nil
}

// storedDeltas is what the deltas take in the store, where all takes bytes: what the server adds to a message counts for
// those that carry deltas.
func (s *stored) storedDeltas(bytes float64) float64 {
	if s.messages == 0 {
		return 0
	}
	added := (bytes - float64(s.data)) / float64(s.messages)
	return float64(s.deltas) + added*float64(s.carriers)
}
