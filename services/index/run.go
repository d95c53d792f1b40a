package index

import eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"

// sizeOf is about how many bytes a logged run takes in memory.
func sizeOf(r *eventsv1.Run) int { return 200 + 8*(len(r.Hashes)+len(r.Keys)+len(r.Shown)) }
