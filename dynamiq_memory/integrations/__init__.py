"""The parts of this package that adapters to frameworks use, beside its public names.

They are stable within 0.x: a change that breaks an adapter changes the minor version.

- `messages`: the names of a message's metadata, ids, checks, and text for a prompt.
- `native`: a framework's own fields, kept in a message so that it reads back exactly what it wrote.
- `blocks`: calls and results that other frameworks stored as blocks of content, in canonical fields.
- `alignment`: which messages of a conversation that a framework hands over are stored already.
- `ordering`: times and filters that keep new messages after those that are stored.
- `turns`: turns, budgets, and cutting a conversation only where every LLM API accepts it.
- `interruptions`: the messages given instead of the missing part of what was cut off.
- `plans`: logic over a `Memory`, written once for sync and async.
- `references`: a memory by reference, for frameworks that save their state.
- `arguments`: checks of an adapter's arguments.
- `readers`: readers of conversations that a framework stored, for imports.
"""
