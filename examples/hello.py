from task import Context, Outcome, Worker, complete, run


class HelloWorld(Worker):
    type = "hello-world"

    def do_task(self, ctx: Context) -> Outcome:
        return complete(f"hello {self.task.value}")


if __name__ == "__main__":
    run(HelloWorld)
