"""The memory service: the Dynamiq platform's endpoints, and more, over any backend.

    dynamiq-memory serve --backend sqlite:///conversations.db --port 8000

Needs the extra `server`. `create_app` in `dynamiq_memory.server.app` is the ASGI application.
"""
