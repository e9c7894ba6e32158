"""``/v1/responses``: OpenAI's Responses, over the road that chats take."""
