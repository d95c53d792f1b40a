package router

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"github.com/warmpath/warmpath/libs/fleet"
	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
)

// modelObject is one entry of /v1/models as engines spell it.
type modelObject struct {
	ID          string  `json:"id"`
	Object      string  `json:"object"`
	Created     int64   `json:"created"`
	OwnedBy     string  `json:"owned_by"`
	Root        string  `json:"root"`
	Parent      *string `json:"parent"`
	MaxModelLen *int    `json:"max_model_len"`
}

// listModels joins the models of all engines, and of pools that have none now.
func (rt *router) listModels(v *fleet.View) []modelObject {
	byID := make(map[string]modelObject)
	add := func(m fleet.Model) {
		o := modelObject{ID: m.ID, Object: "model", Created: rt.started.Unix(), OwnedBy: "warmpath", Root: m.ID}
		if m.Parent != "" {
			o.Parent = &m.Parent
		}
		if m.MaxModelLen > 0 {
			o.MaxModelLen = &m.MaxModelLen
		}
		if known, ok := byID[m.ID]; !ok || known.MaxModelLen == nil && m.MaxModelLen > 0 {
			byID[m.ID] = o
		}
	}
	for _, e := range v.Engines {
		if e.State != fleet.Gone {
			for _, m := range e.Models {
				add(m)
			}
		}
	}
	for _, p := range v.Pools {
		add(fleet.Model{ID: p.Model})
	}
	list := make([]modelObject, 0, len(byID))
	for _, m := range byID {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b modelObject) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

func (rt *router) models(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, struct {
		Object string        `json:"object"`
		Data   []modelObject `json:"data"`
	}{"list", rt.listModels(rt.fleet.View())})
}

func (rt *router) model(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	for _, m := range rt.listModels(rt.fleet.View()) {
		if m.ID == id {
			writeJSON(w, m)
			return
		}
	}
	rt.refuse(w, unknownModel(id))
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // plain structs; the client may be gone
}

// promptParam names the member that holds the prompt.
func (q *request) promptParam() string {
	if q.kind == scorerv1.Kind_KIND_CHAT {
		return "messages"
	}
	return "prompt"
}

func tooLong(tokens, most int) string {
	return fmt.Sprintf("the prompt has %d tokens; the model takes at most %d", tokens, most)
}
