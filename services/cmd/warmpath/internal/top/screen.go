package top

import (
	"context"
	"errors"
	"io"

	tea "charm.land/bubbletea/v2"
)

// Run shows the fleet in the terminal of in and out until the user quits or ctx ends. pool is the id or the model that is
// shown first; "" is any.
func Run(ctx context.Context, url, pool string, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	program := tea.NewProgram(&screen{wanted: pool}, tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out), tea.WithoutSignalHandler())
	done := make(chan struct{})
	go func() {
		defer close(done)
		Follow(ctx, url, func(p *Picture) { program.Send(p) })
	}()
	_, err := program.Run()
	cancel()
	<-done
	if errors.Is(err, tea.ErrProgramKilled) || errors.Is(err, tea.ErrInterrupted) {
		return nil // by ctx, or by ctrl-c
	}
	return err
}

// screen is what the terminal shows: the last picture, and how it is looked at.
type screen struct {
	picture       *Picture
	show          Show
	wanted        string // pool, by id or model, until a picture has it
	width, height int
}

// Init is for bubbletea.
func (s *screen) Init() tea.Cmd { return nil }

// Update is for bubbletea: keys, sizes and pictures.
func (s *screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		s.width, s.height = msg.Width, msg.Height
	case *Picture:
		s.picture = msg
		if p := msg.Find(s.wanted); s.wanted != "" && p != nil {
			s.show.Pool, s.wanted = p.ID, ""
		}
	case tea.KeyPressMsg:
		return s, s.key(msg.String())
	}
	return s, nil
}

func (s *screen) key(key string) tea.Cmd {
	switch key {
	case "q", "ctrl+c":
		return tea.Quit
	case "s":
		s.show.Order = (s.show.Order + 1) % (ByState + 1)
	case "?", "h":
		s.show.Help = !s.show.Help
	case "esc":
		s.show.Help = false
	case "tab", "right", "down":
		s.step(1)
	case "shift+tab", "left", "up":
		s.step(-1)
	}
	return nil
}

// step chooses the pool after or before the one shown.
func (s *screen) step(by int) {
	if s.picture == nil || len(s.picture.Pools) == 0 {
		return
	}
	n := len(s.picture.Pools)
	_, at := find(s.picture.Pools, s.show.Pool)
	s.show.Pool = s.picture.Pools[(at+by+n)%n].ID
}

// View is for bubbletea.
func (s *screen) View() tea.View {
	v := tea.NewView("")
	if s.picture != nil && s.height > 0 {
		v.SetContent(Frame(s.picture, s.show, s.width, s.height))
	}
	v.AltScreen, v.WindowTitle = true, "warmpath top"
	return v
}
