// The end of each program in Go: runGuarded() and sqlstate() are above.
func answer(command, sql string, input *bufio.Scanner, no string) string {
	switch command {
	case "me":
		return me
	case "token":
		if token := leads(); token != 0 {
			return strconv.FormatInt(token, 10)
		}
		return "none"
	case "false":
		return no
	}
	err := runGuarded(leads(), func(execute func(string) error) error {
		if err := execute(sql); err != nil {
			return err
		}
		if command == "open" {
			fmt.Println("open")
			input.Scan()
		}
		return nil
	})
	if err == nil {
		return "done"
	}
	fmt.Fprintln(os.Stderr, err)
	return "error " + sqlstate(err)
}

func main() {
	var is bool
	no := "no"
	if err := ask("SELECT le_is_leader(1, $1)", []interface{}{"nobody"}, &is); err != nil {
		panic(err)
	}
	if is {
		no = "yes"
	}
	electing, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		elect(electing)
		close(done)
	}()
	for input := bufio.NewScanner(os.Stdin); input.Scan() && input.Text() != "stop"; {
		words := append(strings.SplitN(input.Text(), " ", 2), "")
		fmt.Println(answer(words[0], words[1], input, no))
	}
	stop()
	<-done
}
